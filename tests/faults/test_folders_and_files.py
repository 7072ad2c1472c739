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
