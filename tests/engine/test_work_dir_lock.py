"""Two trainings in one folder: the second one is refused, unless the first one is gone."""

import json
import os
import signal
import socket
import threading
import time

import pytest

from hybrid_mm.engine import work_dir_lock
from hybrid_mm.engine.process_identity import ProcessIdentity
from hybrid_mm.engine.work_dir_lock import NAME, locked
from hybrid_mm.errors import UserError


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(work_dir_lock, 'GRACE', 0.2)
    monkeypatch.setattr(work_dir_lock, 'PATIENCE', 0.5)
    monkeypatch.setattr(work_dir_lock, 'BEAT', 0.1)


@pytest.fixture
def other(tmp_path):
    """Function that starts a process that holds the lock of folders until it is killed."""
    started = []

    def start(*folders):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            with locked(folders or [tmp_path]):
                os.write(writer, b'x')
                signal.pause()
            os._exit(0)
        started.append(pid)
        os.close(writer)
        assert os.read(reader, 1) == b'x'
        os.close(reader)
        return pid

    yield start
    for pid in started:
        end(pid)


def end(pid, how=signal.SIGKILL):
    try:
        os.kill(pid, how)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def refused(folder):
    with pytest.raises(UserError) as caught, locked([folder]):
        pass
    return str(caught.value)


def test_second_training_is_refused_and_a_killed_one_is_not_waited_for(tmp_path, other):
    pid = other()
    text = refused(tmp_path)
    assert f'{tmp_path} is in use: process {pid} on {socket.gethostname()} (since 20' in text
    assert 'choose another --work-dir' in text and 'delete' not in text
    end(pid)
    assert (tmp_path / NAME).exists()
    with locked([tmp_path]):
        assert json.loads((tmp_path / NAME).read_text())['holder']['pid'] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_other_names_of_a_folder(tmp_path, other):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'a')
    other(tmp_path / 'link')
    assert str(tmp_path / 'a') in refused(tmp_path / 'a' / '..' / 'a')
    with locked([tmp_path / 'b', tmp_path]):  # others are free
        pass


def test_none_is_kept_if_one_is_in_use(tmp_path, other):
    other(tmp_path / 'b')
    with pytest.raises(UserError, match='b is in use'), locked([tmp_path / 'a', tmp_path / 'b']):
        pass
    assert not (tmp_path / 'a' / NAME).exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, UserError])
def test_it_is_free_after_an_error(tmp_path, error):
    with pytest.raises(error), locked([tmp_path]):
        raise error('x')
    assert not list(tmp_path.iterdir())


def test_once_in_a_process(tmp_path):
    """The tool and the hook of checkpoints lock the same folder."""
    with locked([tmp_path]):
        with locked([tmp_path]):
            pass
        assert (tmp_path / NAME).exists()
    assert not (tmp_path / NAME).exists()


def test_other_processes_of_a_run_take_none(tmp_path, other):
    other()
    with locked([tmp_path], rank=1):
        pass


def test_forked_workers_do_not_hold_it(tmp_path, other):
    """A worker of a data loader outlives its killed parent by seconds."""
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        with locked([tmp_path]):
            worker = os.fork()
            if not worker:
                signal.pause()
                os._exit(0)
            os.write(writer, str(worker).encode())
            signal.pause()
    worker = int(os.read(reader, 20))
    end(parent)
    try:
        os.kill(worker, 0)
        with locked([tmp_path]):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def written(folder, **changes):
    """Write the file of a holder, as if of an earlier process."""
    path = folder / NAME
    path.touch()
    holder = dict(host=socket.gethostname(), pid=os.getpid(), start=1) | changes
    content = dict(holder=holder, since='2026-01-01 00:00:00', inode=path.stat().st_ino)
    path.write_text(json.dumps(content))
    return path


def test_of_another_machine(tmp_path, capsys, monkeypatch):
    path = written(tmp_path, host='elsewhere', pid=77)
    stop = threading.Event()

    def live():
        while not stop.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    with monkeypatch.context() as patch:
        patch.setattr(work_dir_lock, 'PATIENCE', 30)  # until the first sign
        text = refused(tmp_path)
    stop.set()
    thread.join()
    assert 'process 77 on elsewhere (since 2026-01-01 00:00:00)' in text
    assert f'if that process is gone, delete {path}' in text
    with locked([tmp_path]):
        pass
    assert 'gives no sign of life; this training takes over' in capsys.readouterr().err
    # a copy of a folder brings the file along; nobody waits for that one
    path = written(tmp_path, host='elsewhere')
    path.write_text(path.read_text().replace('"inode": ', '"inode": 9'))
    with locked([tmp_path]):
        pass
    assert capsys.readouterr().err == ''


def test_without_locks_of_the_file_system(tmp_path, monkeypatch, other):
    """Then the process that the file names decides; its number may be used again."""
    monkeypatch.setattr(work_dir_lock, '_lock', lambda descriptor: None)
    pid = other()
    assert f'process {pid}' in refused(tmp_path)
    end(pid)
    with locked([tmp_path]):
        pass
    for changes in (dict(pid=os.getppid()), dict(pid=2**22 + 1)):
        written(tmp_path, **changes)  # started at another time; no such process
        with locked([tmp_path]):
            pass


@pytest.mark.parametrize('text', ['', '{', '[]', '{"holder": {"host": 3}}', '\0\0', 'é' * 9])
def test_damaged_file(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with locked([tmp_path]):
        pass


def test_signs_of_life(tmp_path):
    with locked([tmp_path]):
        os.utime(tmp_path / NAME, (1, 1))
        deadline = time.monotonic() + 60
        while (tmp_path / NAME).stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / NAME).stat().st_mtime > 2


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'x', tmp_path / ('x' * 300)):
        assert f'{folder} cannot be written (' in refused(folder)
    (tmp_path / NAME).mkdir()
    assert f'{tmp_path / NAME} cannot be written (Is a directory)' in refused(tmp_path)


def test_identity():
    current = ProcessIdentity.current()
    assert current.here and not current.gone and current.start > 0
    assert ProcessIdentity(current.host, current.pid, current.start + 1).gone
    assert ProcessIdentity(current.host, 2**22 + 1, 5).gone
    assert not ProcessIdentity('elsewhere', 2**22 + 1, 5).gone
