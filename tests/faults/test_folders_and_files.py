"""The tools and files that are no checkpoints, and two runs in one folder."""

import os
import signal

import pytest

from hybrid_mm.engine import work_dir_lock

PAGE = b'<!DOCTYPE html><html><title>404</title></html>'


@pytest.fixture
def busy(tmp_path):
    """Folder in which another process trains."""
    folder, (reader, writer) = tmp_path / 'busy', os.pipe()
    pid = os.fork()
    if not pid:
        with work_dir_lock.locked([folder]):
            os.write(writer, b'x')
            signal.pause()
    os.read(reader, 1)
    yield folder
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_second_run_in_a_folder(det_config, busy, fails, tool, tmp_path, monkeypatch):
    monkeypatch.setattr(work_dir_lock, 'GRACE', 0.1)
    before = sorted(busy.rglob('*'))
    for flags in ((), ('--resume',)):
        text = fails('train', det_config, '--work-dir', busy, *flags)
        assert f'{busy} is in use: process ' in text and 'choose another --work-dir' in text
    # the folder of the checkpoints, which two runs of one name share
    out_dir = f'default_hooks.checkpoint.out_dir={tmp_path}'
    text = fails(
        'train', det_config, '--work-dir', tmp_path / 'other' / 'busy', '--cfg-options', out_dir
    )
    assert f'{busy} is in use' in text
    assert tool('train', det_config, '--work-dir', busy, '--dry-run')[0] == 0
    assert sorted(busy.rglob('*')) == before


def test_processes_of_one_run_do_not_block_each_other(det_config, fork_tool, tmp_path):
    fork_tool('train', 2, det_config, '--work-dir', tmp_path / 'run', '--no-validate')
    assert (tmp_path / 'run' / 'iter_2.pth').exists()
    assert not (tmp_path / 'run' / work_dir_lock.NAME).exists()


@pytest.mark.parametrize('door', ['resume', 'load_from', 'init_cfg', 'test'])
def test_files_that_are_no_checkpoints(det_config, fails, tmp_path, door):
    """A web page, a pipe (which would wait) and half a file, at every door."""
    (tmp_path / 'page.pth').write_bytes(PAGE)
    (tmp_path / 'half.pth').write_bytes(b'PK\3\4' + bytes(range(256)))
    os.mkfifo(tmp_path / 'pipe.pth')
    init = 'model.backbone.init_cfg.type=Pretrained'
    for name, expected in (
        ('page', 'cannot be read: it is a web page'),
        ('pipe', 'cannot be read: it is a named pipe'),
        ('half', '(260 bytes) cannot be read: it is truncated or damaged'),
    ):
        path = tmp_path / f'{name}.pth'
        flags = {
            'resume': ('--resume', path),
            'load_from': ('--cfg-options', f'load_from={path}'),
            'init_cfg': ('--cfg-options', init, f'model.backbone.init_cfg.checkpoint={path}'),
            'test': (),
        }[door]
        argv = (path,) if door == 'test' else ('--work-dir', tmp_path / 'run', *flags)
        text = fails('test' if door == 'test' else 'train', det_config, *argv)
        assert f'{path} {expected}' in text, text
        assert text.count('\n') == 1


def test_configs_in_the_work_dir(det_config, tool, tmp_path):
    """The user's config is never replaced, that of a training not by a test; none says resume."""
    run = tmp_path / 'run'
    run.mkdir()
    own = run / 'own.py'
    own.write_text(f'# mine\n_base_ = {str(det_config)!r}\n')
    before = own.read_bytes()
    assert tool('train', own, '--work-dir', run)[0] == 0
    assert own.read_bytes() == before
    assert tool('train', det_config, '--work-dir', run, '--resume')[0] == 0
    dumped = run / det_config.name
    kept = dumped.read_bytes()
    assert b'resume=True' not in kept and b'iter_2' not in kept
    assert tool('test', det_config, run / 'iter_2.pth', '--work-dir', run, '--tta')[0] == 0
    assert dumped.read_bytes() == kept
    others = [path for path in run.glob('*.py') if path not in (own, dumped)]
    # one, if both began in the same second
    assert others and all(path.stem.replace('_', '').isdigit() for path in others)
    # beginning with what a run left begins anew
    status, err = tool('train', dumped, '--work-dir', tmp_path / 'new')
    assert status == 0 and 'nothing is left to train' not in err
    assert (tmp_path / 'new' / 'iter_2.pth').exists()


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        (('--resume', ''), "checkpoint '' has no name; is a variable empty?"),
        (('--work-dir', ''), "work_dir is '', which names no folder"),
        (('--work-dir', 's3://a/b'), 'work_dir s3://a/b must be a local folder'),
        (('--work-dir=~/nobody',), '/home-of-nobody/nobody cannot be made'),
        (('--cfg-options', 'load_from=3'), 'load_from must be a file, a URL or None, got 3'),
        (
            ('--cfg-options', 'default_hooks.checkpoint.filename_tmpl=a_{x}.pth'),
            "filename_tmpl 'a_{x}.pth' of the checkpoint hook cannot be filled with a number (x)",
        ),
        (
            ('--cfg-options', 'default_hooks.checkpoint.save_best=bbox_mAP'),
            'did you mean coco/bbox_mAP',
        ),
    ],
)
def test_names_that_name_nothing(det_config, fails, tmp_path, monkeypatch, flags, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'home-of-nobody').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'home-of-nobody'))
    assert expected in fails('train', det_config, *flags)


def test_empty_names_for_predict(det_config, fails, tmp_path):
    text = fails('predict', det_config, 'x.pth', '', '--out', tmp_path / 'out')
    assert "an input is '', which names nothing" in text
