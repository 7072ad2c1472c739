"""The checkpoint that a training is resumed from: the last good one of its work dir."""

import os
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from hybrid_mm.checkpoint_files import checksum
from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.errors import UserError
from hybrid_mm.run import launch
from hybrid_mm.run.config import checkpoint_hook
from hybrid_mm.run.resume import (
    find_training_state,
    read_training_state,
    set_resume,
    warn_of_others,
)


def files(folder):
    return sorted(p.name for p in folder.glob('*.pth*'))


def state(iter=0, epoch=0, time='', **more):
    meta = dict(iter=iter, epoch=epoch) | (dict(time=f'20260101_{time}') if time else {})
    weights = {'fc.weight': torch.rand(2, 3)}
    return dict(state_dict=weights, optimizer={}, message_hub={}, meta=meta) | more


def save(path, *args, **kwargs):
    """Write a checkpoint; the later, the older is its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = state(*args, **kwargs)
    torch.save(content | dict(checksum=checksum(content)), path)
    save.time -= 10
    os.utime(path, (save.time, save.time))
    return path


save.time = 1.7e9


def point(folder, path):
    folder.mkdir(exist_ok=True)
    (folder / 'last_checkpoint').write_text(str(path))


def warnings(capsys):
    return [x for x in capsys.readouterr().err.splitlines() if x.startswith('warning: ')]


def newest(work_dir, **hook):
    found = find_training_state(work_dir, hook)
    return found and os.path.relpath(found.path, work_dir)


def why_unusable(path):
    try:
        read_training_state(str(path), complete=True)
    except CheckpointError as error:
        assert str(error) == f'checkpoint {path} {error.reason}'
        return error.reason
    return None


def test_auto_resume_passes_over_damaged_files(tmp_path, capsys):
    first, middle, last = (save(tmp_path / f'epoch_{i}.pth', epoch=i, iter=i) for i in (1, 2, 3))
    assert newest(tmp_path) == last.name
    last.write_bytes(last.read_bytes()[:-200])
    assert newest(tmp_path) == middle.name
    assert 'epoch_3.pth: ' in capsys.readouterr().err
    content = torch.load(middle, weights_only=False)
    content['meta']['iter'] += 1
    torch.save(content, middle)
    assert newest(tmp_path) == first.name
    err = capsys.readouterr().err
    assert 'epoch_2.pth: does not match its checksum' in err and 'several runs' not in err
    torch.save(dict(state_dict={}), first)
    with pytest.raises(
        UserError, match=r'(?s)no good checkpoint.*epoch_1.pth: does not hold the state'
    ):
        newest(tmp_path)


@pytest.mark.parametrize('named', [True, False])
@pytest.mark.parametrize('timed', ['all', 'some', 'same', 'none'])
@pytest.mark.parametrize('form', ['epoch_{}.pth', 'iter_{}.pth', 'step{:05d}.pt', 'a/x_{}.pth'])
def test_last_step_is_resumed(tmp_path, capsys, named, timed, form):
    """By what the files say of themselves: their own times are those of a copy."""
    steps = (8, 9, 10, 110)
    for i in steps:
        own = f'0000{i:02d}'[-6:]
        time = dict(all=own, some=own if i < 10 else '', same='000001', none='')[timed]
        save(tmp_path / form.format(i), iter=10 * i, epoch=i if 'ep' in form else 0, time=time)
    for i in reversed(steps):
        if named:
            point(tmp_path, tmp_path / form.format(i))
        assert newest(tmp_path, filename_tmpl=form) == form.format(i)
        (tmp_path / form.format(i)).unlink()
    assert not warnings(capsys)
    (tmp_path / 'last_checkpoint').unlink(missing_ok=True)
    assert newest(tmp_path, filename_tmpl=form) is None


def test_crash_between_a_checkpoint_and_its_pointer(tmp_path, capsys):
    save(tmp_path / 'iter_2.pth', 2, time='000002')
    save(tmp_path / 'iter_4.pth', 4, time='000004')
    point(tmp_path, tmp_path / 'iter_2.pth')
    assert newest(tmp_path) == 'iter_4.pth'
    assert not warnings(capsys)


@pytest.mark.parametrize('named', [True, False])
def test_files_of_several_runs(tmp_path, capsys, named):
    """The run that was there last goes on, and not the one that came further; it is said."""
    for i in (900, 1000):
        save(tmp_path / f'iter_{i}.pth', i, time='000001')
    save(tmp_path / 'epoch_12.pth', 3000, 12, time='000002')
    last = save(tmp_path / 'iter_100.pth', 100, time='000003')
    if named:
        point(tmp_path, last)
    assert newest(tmp_path) == 'iter_100.pth'
    (text,) = warnings(capsys)
    assert 'has checkpoints of several runs; going on with iter_100.pth, which was saved' in text
    assert text.endswith('epoch_12.pth, iter_1000.pth, iter_900.pth')


def test_clocks_may_be_wrong_where_the_pointer_is_right(tmp_path):
    """A run that goes on on a machine whose clock is behind."""
    save(tmp_path / 'iter_2.pth', 2, time='000009')
    last = save(tmp_path / 'iter_4.pth', 4, time='000001')
    point(tmp_path, last)
    assert newest(tmp_path) == 'iter_4.pth'


def test_no_points_to_resume_at(tmp_path):
    save(tmp_path / 'iter_2.pth', 2)
    for i, name in enumerate(('non_finite_iter_9', 'best_x_iter_9', 'iter_2-0123abcd', 'mine')):
        save(tmp_path / f'{name}.pth', 9 + i)
    assert newest(tmp_path) == 'iter_2.pth'
    (tmp_path / 'iter_2.pth').unlink()
    assert newest(tmp_path) == 'mine.pth'  # better than to start anew
    (tmp_path / 'mine.pth').unlink()
    assert newest(tmp_path) is None


def test_out_dir_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in (2, 4):
        save(tmp_path / 'kept' / 'run' / f'iter_{i}.pth', i)
        save(tmp_path / 'kept' / 'other' / f'iter_{i + 5}.pth', i + 5)
    assert newest(tmp_path / 'run', out_dir='kept') == '../kept/run/iter_4.pth'
    point(tmp_path / 'run', 'kept/run/iter_4.pth')  # relative to where it was started
    monkeypatch.chdir(tmp_path / 'run')
    assert newest('.', out_dir='../kept') == '../kept/run/iter_4.pth'


def test_pointer_to_another_run(tmp_path, capsys):
    """A copied folder goes on with its own files; with none, nothing of the other run is taken."""
    old, new = tmp_path / 'old', tmp_path / 'new'
    for i in (2, 4):
        save(old / f'iter_{i}.pth', i, time=f'00000{i}')
    point(old, old / 'iter_4.pth')
    shutil.copytree(old, new)
    assert newest(new) == 'iter_4.pth'
    assert not warnings(capsys)
    (new / 'iter_4.pth').unlink()
    assert newest(new) == 'iter_2.pth'
    text = f'{old}/iter_4.pth (named by last_checkpoint) is in the folder of another run'
    assert text in warnings(capsys)[0]
    (new / 'iter_2.pth').unlink()
    with pytest.raises(
        UserError, match=r'(?s)no good checkpoint.*of another run\n.*--resume CHECK'
    ):
        newest(new)


@pytest.mark.parametrize('text', [b'', b'\xff\xfe\0', b'iter_9.pth', b'\n\n', b'x' * 9000])
def test_damaged_pointer(tmp_path, text):
    save(tmp_path / 'iter_2.pth', 2)
    (tmp_path / 'last_checkpoint').write_bytes(text)
    assert newest(tmp_path) == 'iter_2.pth'


def test_what_is_no_state_of_a_training(tmp_path):
    good, other = state(), 'does not match its checksum'
    for content, expected in (
        (good, None),
        (good | dict(checksum=checksum(good)), None),
        (good | dict(checksum='0' * 32), other),
        (good | dict(checksum=''), other),
        *(
            (good | {key: value}, f'does not hold the state of a training (no {key}')
            for key in ('state_dict', 'optimizer', 'meta')
            for value in (None, [])
        ),
        (good | dict(meta=dict(epoch=3)), 'does not hold the state of a training (no iter in meta'),
        ([good], 'holds a list; expected a dict of weights'),
    ):
        torch.save(content, tmp_path / 'x.pth')
        found = why_unusable(tmp_path / 'x.pth')
        assert (found or '').startswith(expected or '') and bool(found) == bool(expected), content


def test_resume_of_the_tool(tool, fails, det_config, tmp_path):
    flags = ('--work-dir', tmp_path, '--cfg-options', 'train_cfg.val_interval=100')
    hook = 'default_hooks.checkpoint.type=hybrid_mm.AtomicCheckpointHook'
    assert tool('train', det_config, *flags, hook, 'train_cfg.max_iters=4')[0] == 0
    assert files(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    (tmp_path / 'iter_4.pth').write_bytes(b'half')
    start = 'model.backbone.init_cfg.'  # a file that is not there is needed no more
    gone = (f'{start}type=Pretrained', f'{start}checkpoint=hybrid_mm://pelk-tiny_in1k')
    assert 'never published' in fails('train', det_config, *flags, *gone)
    argv = ('--resume', *flags, hook, 'train_cfg.max_iters=6', *gone)
    status, err = tool('train', det_config, *argv)
    assert status == 0, err
    assert 'passed over: ' in err and 'iter_4.pth' in err
    assert {'iter_4.pth', 'iter_6.pth'} <= set(files(tmp_path))
    assert why_unusable(tmp_path / 'iter_4.pth') is None
    for path in tmp_path.glob('iter_*.pth'):
        path.write_bytes(b'')
    assert 'has no good checkpoint' in fails('train', det_config, '--resume', *flags)


def test_a_checkpoint_that_is_named(tmp_path):
    """It may lack the optimizer, whose state then starts anew, but not where the training was."""
    path = str(tmp_path / 'x.pth')
    good = state()
    good['meta']['seed'] = 7
    torch.save(good, path)
    found = read_training_state(path)
    assert (found.path, found.seed) == (path, 7)
    torch.save({k: v for k, v in good.items() if k != 'optimizer'}, path)
    assert read_training_state(path).seed == 7
    for content in (dict(state_dict={}), dict(meta={}), dict(state_dict={}, meta=None)):
        torch.save(content, path)
        with pytest.raises(UserError, match=r'the state of a training .* load_from=.*x\.pth$'):
            read_training_state(path)
    torch.save(state(), path)
    assert read_training_state(path).seed is None
    torch.save(state() | dict(checksum='of something else'), path)
    with pytest.raises(UserError, match='does not match its checksum'):
        read_training_state(path)


def test_hooks_that_save():
    """Those of a config, wherever they stand; MMEngine's gives way to ours."""
    for hooks, expected in (
        (None, dict(interval=1)),  # as MMEngine
        (dict(checkpoint=None), {}),
        (dict(checkpoint=dict(type='CheckpointHook', interval=2)), dict(interval=2)),
        (dict(checkpoint=dict(type=CheckpointHook, out_dir='x')), dict(out_dir='x')),
        (dict(checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook')), {}),
    ):
        cfg = Config(dict(default_hooks=hooks, custom_hooks=[dict(type='EMAHook')]))
        launch.set_atomic_checkpoints(cfg)
        found = dict(checkpoint_hook(cfg))
        wanted = 'hybrid_mm.AtomicCheckpointHook' if hooks != dict(checkpoint=None) else None
        assert (found.pop('type', None), found) == (wanted, expected), hooks
    own = dict(type='MyCheckpointHook', out_dir='y')
    cfg = Config(dict(default_hooks=dict(checkpoint=None), custom_hooks=[own]))
    launch.set_atomic_checkpoints(cfg)
    assert checkpoint_hook(cfg) == own
    sharded = Config(dict(runner_type='FlexibleRunner'))
    launch.set_atomic_checkpoints(sharded)
    assert 'default_hooks' not in sharded


def test_checkpoints_of_others_that_will_be_overwritten(tmp_path, capsys):
    for i in (2, 4, 6):
        save(tmp_path / 'run' / f'iter_{i}.pth', i)
    warn_of_others(tmp_path / 'run', {}, None)
    (text,) = warnings(capsys)
    assert 'has checkpoints of another training (iter_2.pth, iter_4.pth, iter_6.pth)' in text
    assert text.endswith('; --resume would continue it')
    warn_of_others(tmp_path / 'run', {}, str(tmp_path / 'run' / 'iter_4.pth'))
    (text,) = warnings(capsys)
    assert '(iter_6.pth)' in text and 'would continue' not in text
    save(tmp_path / 'parent' / 'iter_4.pth', 4)
    warn_of_others(tmp_path / 'run', {}, str(tmp_path / 'parent' / 'iter_4.pth'))
    assert '(iter_2.pth, iter_4.pth, iter_6.pth)' in warnings(capsys)[0]
    warn_of_others(tmp_path / 'run', {}, str(tmp_path / 'run' / 'iter_6.pth'))
    warn_of_others(tmp_path / 'empty', {}, None)
    assert not warnings(capsys)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(optimizer=[1]), 'no optimizer, but a list in its place'),
        (dict(message_hub='x'), 'no message_hub, but a str in its place'),
        (dict(meta=dict(epoch=0, iter=-1)), 'does not say at which iter'),
        (dict(meta=dict(epoch=True, iter=1)), 'does not say at which epoch'),
    ],
)
def test_parts_of_another_type(tmp_path, change, text):
    path, whole = tmp_path / 'a.pth', dict(state_dict={}, optimizer={}, meta=dict(epoch=0, iter=1))
    torch.save(whole | change, path)
    with pytest.raises(CheckpointError, match=text):
        set_resume(Config(dict(work_dir=str(tmp_path / 'new'))), str(path))


def test_seed_that_is_none(tmp_path):
    torch.save(dict(state_dict={}, meta=dict(epoch=0, iter=1, seed='x')), tmp_path / 'a.pth')
    cfg = Config(dict(work_dir=str(tmp_path / 'new')))
    assert set_resume(cfg, str(tmp_path / 'a.pth')) == str(tmp_path / 'a.pth')
    assert 'randomness' not in cfg
