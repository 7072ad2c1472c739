"""The checkpoint that a training is resumed from: the newest good one of its work dir."""

import os

import pytest
import torch

from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.engine.hooks.atomic_checkpoint import checksum
from hybrid_mm.errors import UserError
from hybrid_mm.run.resume import find_training_state, read_training_state


def files(folder):
    return sorted(p.name for p in folder.glob('*.pth*'))


def newest(work_dir):
    state = find_training_state(work_dir)
    return state and state.path


def why_unusable(path):
    try:
        read_training_state(str(path), complete=True)
    except CheckpointError as error:
        assert str(error) == f'checkpoint {path} {error.reason}'
        return error.reason
    return None


def test_auto_resume_passes_over_damaged_files(tmp_path, capsys):
    first, middle, last = paths = [tmp_path / f'epoch_{i}.pth' for i in (1, 2, 3)]
    for i, path in enumerate(paths):
        saved = dict(state_dict={'fc.weight': torch.rand(2, 3)}, optimizer={}, meta=dict(epoch=i))
        torch.save(saved | dict(checksum=checksum(saved)), path)
    assert newest(tmp_path) == str(last)
    last.write_bytes(last.read_bytes()[:-200])
    os.utime(last)
    assert newest(tmp_path) == str(middle)
    assert 'epoch_3.pth: ' in capsys.readouterr().err
    content = torch.load(middle, weights_only=False)
    content['state_dict']['fc.weight'][0, 0] += 1
    torch.save(content, middle)
    assert newest(tmp_path) == str(first)
    assert 'epoch_2.pth: does not match its checksum' in capsys.readouterr().err
    torch.save(dict(state_dict={}), first)
    with pytest.raises(
        UserError, match=r'(?s)no good checkpoint.*epoch_1.pth: does not hold the state'
    ):
        newest(tmp_path)


@pytest.mark.parametrize(('names', 'same_time'), [
    (['epoch_8', 'epoch_9', 'epoch_10', 'epoch_11'], False),
    (['epoch_8', 'epoch_9', 'epoch_10', 'epoch_11'], True),
    (['iter_800', 'iter_900', 'iter_1000'], False),
    (['iter_800', 'iter_900', 'iter_1000'], True),
    (['epoch_9', 'iter_1000', 'epoch_10', 'iter_200'], False),
    # an earlier run left its last ones in the folder, the present one has come as far as its first
    (['iter_900', 'iter_1000', 'iter_100'], False),
])  # fmt: skip
def test_newest_of_many(tmp_path, capsys, names, same_time):
    """In the order of their times, and by number where the file system has one time for all."""
    good = dict(state_dict={}, optimizer={}, meta={})
    for i, name in enumerate(names):
        torch.save(good, tmp_path / f'{name}.pth')
        os.utime(tmp_path / f'{name}.pth', (5e8, 5e8 + (0 if same_time else 10 * i)))
    for name in reversed(names):
        assert newest(tmp_path) == str(tmp_path / f'{name}.pth')
        (tmp_path / f'{name}.pth').unlink()
    assert newest(tmp_path) is None


def test_what_is_no_state_of_a_training(tmp_path):
    good = dict(state_dict={}, optimizer={}, meta={})
    for content, expected in (
        (good, None),
        (good | dict(checksum=checksum(good)), None),
        (good | dict(checksum='0' * 32), 'does not match its checksum'),
        (good | dict(checksum=''), 'does not match its checksum'),
        *(
            ({k: v for k, v in good.items() if k != key}, 'does not hold the state of a training')
            for key in good
        ),
        ([good], 'holds a list; expected a dict of weights'),
    ):
        torch.save(content, tmp_path / 'x.pth')
        assert why_unusable(tmp_path / 'x.pth') == expected, content


def test_resume_of_the_tool(tool, fails, det_config, tmp_path):
    flags = ('--work-dir', tmp_path, '--cfg-options', 'train_cfg.val_interval=100')
    hook = 'default_hooks.checkpoint.type=hybrid_mm.AtomicCheckpointHook'
    assert tool('train', det_config, *flags, hook, 'train_cfg.max_iters=4')[0] == 0
    assert files(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    (tmp_path / 'iter_4.pth').write_bytes(b'half')
    status, err = tool('train', det_config, '--resume', *flags, hook, 'train_cfg.max_iters=6')
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
    good = dict(state_dict={}, optimizer={}, meta=dict(seed=7), checksum='of something else')
    for content in (good, {k: v for k, v in good.items() if k != 'optimizer'}):
        torch.save(content, path)
        state = read_training_state(path)
        assert (state.path, state.seed) == (path, 7)
    for content in (dict(state_dict={}), dict(meta={}), dict(state_dict={}, meta=None)):
        torch.save(content, path)
        with pytest.raises(UserError, match=r'the state of a training; .* load_from=.*x\.pth$'):
            read_training_state(path)
    torch.save(dict(state_dict={}, meta={}), path)
    assert read_training_state(path).seed is None
