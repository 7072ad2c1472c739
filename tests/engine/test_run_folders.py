"""A run touches files of its own folder only, whatever its checkpoint says of others."""

import os
import shutil

import pytest
import torch
from mmengine.fileio import LocalBackend, register_backend

from hybrid_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
<<<<<<< HEAD
=======
from hybrid_mm.errors import UserError
>>>>>>> refs/heads/net

BEST = dict(validate=True, save_best='x/score', rule='greater')


def files(folder):
    return sorted(p.name for p in folder.rglob('*') if '.pth' in p.name)


def pointer(folder):
    return (folder / 'last_checkpoint').read_text()


def info(path):
    return torch.load(path, weights_only=False)['message_hub']['runtime_info']


@pytest.fixture
def old(runner, tmp_path):
    """Folder of a run of two epochs, whose second one is the best."""
    run = runner(tmp_path / 'old', epochs=2, max_keep_ckpts=2, **BEST)
    assert any(isinstance(hook, AtomicCheckpointHook) for hook in run.hooks)
    run.train()
    assert files(tmp_path / 'old') == ['best_x_score_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
    return tmp_path / 'old'


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('start', ['epoch_1.pth', 'epoch_2.pth', 'best_x_score_epoch_2.pth'])
def test_branch_leaves_its_parent_alone(runner, old, tmp_path, start):
    before, new = contents(old), tmp_path / 'new'
    new.mkdir()
    # files of another run, of the names in the checkpoint, are not those of the branch either
    best = os.path.basename(info(old / start).get('best_ckpt', 'best_x_score_epoch_1.pth'))
    strangers = [new / 'epoch_1.pth', new / best]
    for path in strangers:
        path.write_bytes(b'of somebody else')
    run = runner(new, epochs=5, max_keep_ckpts=1, resume=old / start, **BEST)
    run.train()
    assert contents(old) == before
    assert all(path.read_bytes() == b'of somebody else' for path in strangers)
    assert pointer(new) == str(new / 'epoch_5.pth')
    end = info(new / 'epoch_5.pth')
    assert end['keep_ckpt_ids'] in ([4, 5], [5])  # none of the parent's
    assert end['best_ckpt'].startswith(str(new)) and os.path.isfile(end['best_ckpt'])
    assert end['best_ckpt'] != str(new / best)


def test_branch_chooses_its_own_best(runner, old, tmp_path):
    """Its first validation is the best so far, even if one of the parent was better."""
    runner.score.calls = 2  # the next scores are 0, 1
    new = tmp_path / 'new'
    runner(new, epochs=3, resume=old / 'epoch_2.pth', **BEST).train()
    assert files(new) == ['best_x_score_epoch_3.pth', 'epoch_3.pth']
    assert info(new / 'epoch_3.pth')['best_score'] == 0


@pytest.mark.parametrize('way', ['copied', 'moved', 'linked', 'relative'])
def test_folder_in_a_new_place_goes_on(runner, old, tmp_path, way, monkeypatch):
    new, before = tmp_path / 'elsewhere' / 'renamed', contents(old)
    new.parent.mkdir()
    if way == 'copied':
        shutil.copytree(old, new)
    elif way == 'linked':
        new.symlink_to(old)
    else:
        shutil.move(old, new)
    if way == 'relative':
        monkeypatch.chdir(new.parent)
        new = new.relative_to(new.parent)
    runner(new, epochs=3, max_keep_ckpts=2, resume=new / 'epoch_2.pth', **BEST).train()
    # the score of the third is 0: the second stays the best; the first is outdated
    assert files(new) == ['best_x_score_epoch_2.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert os.path.samefile(pointer(new), new / 'epoch_3.pth')
    end = info(new / 'epoch_3.pth')
    assert os.path.dirname(end['best_ckpt']) == os.path.abspath(new)
    runner(new, epochs=5, max_keep_ckpts=1, resume=new / 'epoch_3.pth', **BEST).train()
    # 1, 2: not better than the second epoch's
    assert files(new) == ['best_x_score_epoch_2.pth', 'epoch_5.pth']
    if way == 'copied':
        assert contents(old) == before


def test_missing_best_checkpoint_is_chosen_anew(runner, old):
    (old / 'best_x_score_epoch_2.pth').unlink()
    runner(old, epochs=3, resume=old / 'epoch_2.pth', **BEST).train()
    assert files(old) == ['best_x_score_epoch_3.pth', 'epoch_3.pth']


def test_several_metrics(runner, tmp_path):
    """Each has a best checkpoint of its own; one of them is lost, the other one goes on."""
    settings = dict(validate=True, save_best=['x/score', 'x/other'], rule='greater')
    old, new = tmp_path / 'old', tmp_path / 'new'
    runner(old, epochs=2, **settings).train()
    both = ['best_x_other_epoch_2.pth', 'best_x_score_epoch_2.pth']
    assert files(old) == [*both, 'epoch_2.pth']
    shutil.copytree(old, new)
    (new / both[1]).unlink()
    before = contents(old)
    runner(new, epochs=3, resume=new / 'epoch_2.pth', **settings).train()
    assert files(new) == ['best_x_other_epoch_3.pth', 'best_x_score_epoch_3.pth', 'epoch_3.pth']
    assert contents(old) == before


def test_out_dir_of_ones_own(runner, tmp_path, monkeypatch):
    """Checkpoints lie in OUT_DIR/NAME of the run, which is what a branch must not mix up."""
    monkeypatch.chdir(tmp_path)
    settings = BEST | dict(out_dir='checkpoints', filename_tmpl='step/e{:04d}.pth')
    runner(tmp_path / 'old', epochs=2, max_keep_ckpts=2, **settings).train()
    place = tmp_path / 'checkpoints' / 'old'
    assert files(place) == ['best_x_score_step_e0002.pth', 'e0001.pth', 'e0002.pth']
    assert pointer(tmp_path / 'old') == str(place / 'step' / 'e0002.pth')
    before = contents(place)
    start = place / 'step' / 'e0002.pth'
    runner(tmp_path / 'new', epochs=3, resume=start, **settings).train()
    assert contents(place) == before
    assert files(tmp_path / 'checkpoints' / 'new') == ['best_x_score_step_e0003.pth', 'e0003.pth']
    runner(tmp_path / 'old', epochs=3, resume=start, **settings).train()
    assert files(place) == ['best_x_score_step_e0002.pth', 'e0003.pth']


def test_published_files_are_those_of_the_run(runner, old, tmp_path):
    before, new = contents(old), tmp_path / 'new'
    keys = ['meta', 'state_dict', 'checksum']
    hook = dict(published_keys=keys, save_best=['x/score', 'x/other'], validate=True)
    runner(new, epochs=3, resume=old / 'epoch_2.pth', rule='greater', **hook).train()
    assert contents(old) == before
    published = [name for name in files(new) if '-' in name]
    assert len(published) == 3
    for name in published:
        assert torch.load(new / name, weights_only=False).keys() == {'meta', 'state_dict'}


def test_files_of_others_stay(runner, tmp_path):
    """Unfinished files are removed by the name that ours have, if their process is gone."""
    keep = ['notes.tmp-1', 'x.pth.tmp-12345', 'iter_2.pth.tmp-abc', f'a.tmp-0123abcd-{os.getpid()}']
    gone = f'epoch_1.pth.tmp-0123abcd-{2**22 + 1}-77'  # of another machine; the folder is locked
    for name in [*keep, gone]:
        (tmp_path / name).write_text('x')
    runner(tmp_path, epochs=1).train()
    left = sorted(p.name for p in tmp_path.iterdir() if '.tmp-' in p.name)
    assert left == sorted(keep)


def test_other_storage(runner, old, tmp_path):
    """Its paths are not trusted either."""

    class Remote(LocalBackend):
        pass

    register_backend('test_other_storage', Remote, force=True)
    place, before = dict(backend_args=dict(backend='test_other_storage')), contents(old)
    runner(tmp_path / 'new', epochs=3, resume=old / 'epoch_2.pth', **place, **BEST).train()
    assert contents(old) == before
    assert files(tmp_path / 'new') == ['best_x_score_epoch_3.pth', 'epoch_3.pth']
    settings = place | BEST | dict(max_keep_ckpts=2)
    runner(old, epochs=3, resume=old / 'epoch_2.pth', **settings).train()
    assert files(old) == ['best_x_score_epoch_2.pth', 'epoch_2.pth', 'epoch_3.pth']
