"""Ctrl-C and SIGTERM; whole trainings that get them are in tests/faults/test_interrupted.py."""

import os
import shlex
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger

from hybrid_mm.errors import UserError
from hybrid_mm.run import interrupt

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def kill(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    for _ in range(100):  # a signal is handled between two steps of Python
        time.sleep(0.001)


def describe(standing, command):
    return f'interrupted; {command}'


@pytest.mark.parametrize('number', STATUS)
def test_one_line_and_the_usual_status(number, capsys):
    before = [signal.getsignal(each) for each in STATUS]
    with pytest.raises(SystemExit) as ended, interrupt.interruptible(describe, ['a b', '--c']):
        kill(number)
    assert ended.value.code == STATUS[number]
    captured = capsys.readouterr()
    assert captured.out == '' and captured.err.count('\n') == 1
    assert captured.err.endswith(f"{sys.argv[0]} 'a b' --c\n")
    assert [signal.getsignal(each) for each in STATUS] == before


def test_other_errors_pass(capsys):
    for error in (UserError('x'), RuntimeError('y'), SystemExit(3)):
        with pytest.raises(type(error)) as raised, interrupt.interruptible(describe, []):
            raise error
        assert raised.value is error
    assert capsys.readouterr().err == ''


def test_the_log_file_says_why_a_run_ended(tmp_path, capsys):
    logger = MMLogger('failing', log_file=str(tmp_path / 'log'))
    runner = SimpleNamespace(logger=logger, register_hook=id, hooks=[], save_checkpoint=id)
    with pytest.raises(RuntimeError), interrupt.interruptible(describe, []):
        interrupt.watch(runner)
        raise RuntimeError('in the middle')
    log = (tmp_path / 'log').read_text()
    assert 'Traceback' in log and log.endswith('RuntimeError: in the middle\n')
    assert 'Traceback' not in ''.join(capsys.readouterr())


def test_an_error_that_follows_from_the_signal(capsys):
    """A cleanup that fails, and a worker that got the signal before us."""
    with pytest.raises(SystemExit) as ended, interrupt.interruptible(describe, []):
        try:
            kill()
        finally:
            raise RuntimeError('x')
    assert ended.value.code == 130
    with pytest.raises(SystemExit) as ended, interrupt.interruptible(describe, []):
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Terminated. ')
    assert ended.value.code == 143
    assert capsys.readouterr().err.count('interrupted') == 2


def test_a_worker_that_dies_by_itself(monkeypatch):
    monkeypatch.setattr(interrupt, '_GRACE', 0.01)
    with pytest.raises(RuntimeError), interrupt.interruptible(describe, []):
        raise RuntimeError('DataLoader worker (pid 7) exited unexpectedly')


def test_what_saves_is_finished(capsys):
    done = []

    def save():
        kill()
        done.append(1)

    with pytest.raises(SystemExit), interrupt.interruptible(describe, []):
        interrupt._state.finishing(save)()
        done.append(2)
    assert done == [1]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith('finishing the checkpoint') and second.startswith('interrupted')


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_signal_that_is_swallowed():
    class Swallows:
        def __del__(self):
            kill()

    with pytest.raises(SystemExit) as ended, interrupt.interruptible(describe, []):
        Swallows()
        interrupt._state.check()
    assert ended.value.code == 130


def test_a_second_signal_ends_at_once(monkeypatch):
    child = os.fork()
    if not child:
        interrupt._SAME = 0.0
        with interrupt.interruptible(describe, []):
            interrupt._state.finishing(lambda: (kill(), kill(signal.SIGTERM), time.sleep(60)))()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_workers_leave_it_to_the_process_that_reads_from_them():
    with interrupt.interruptible(describe, []):
        children = []
        for number in STATUS:
            children.append(os.fork())
            if not children[-1]:
                kill(number)
                os._exit(0)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, -signal.SIGTERM]


def test_a_worker_has_nothing_to_say_when_its_reader_is_gone(capfd):
    def child(error):
        if not os.fork():
            sys.excepthook(type(error), error, None)
            os._exit(0)
        os.wait()
        return capfd.readouterr().err

    with interrupt.interruptible(describe, []):
        assert child(ConnectionResetError('x')) == child(EOFError()) == ''
        assert 'ValueError: y' in child(ValueError('y'))
    assert 'ConnectionResetError: x' in child(ConnectionResetError('x'))


@pytest.mark.parametrize(
    ('typed', 'expected'),
    [
        ('python t.py c.py', 'python t.py c.py --resume'),
        ('python t.py c.py --resume', 'python t.py c.py --resume'),
        ("python t.py c.py --resume 'a b.pth' --amp", 'python t.py c.py --amp --resume'),
        ('python t.py --resume=a.pth c.py', 'python t.py c.py --resume'),
        ('python t.py c.py --res --amp', 'python t.py c.py --amp --resume'),
        (
            "python t.py c.py --work-dir 'a b' --cfg-options 'x=[1, 2]' y='$z'",
            "python t.py c.py --work-dir 'a b' --cfg-options 'x=[1, 2]' 'y=$z' --resume",
        ),
    ],
)
def test_how_a_training_goes_on(typed, expected):
    assert interrupt.resuming(shlex.join(shlex.split(typed))) == expected


def test_command_of_a_launch_script(monkeypatch):
    monkeypatch.setenv(interrupt.COMMAND, 'bash tools/dist_train.sh c.py 2 ')
    assert interrupt.command_line(['c.py', '--launcher', 'pytorch']) == (
        'bash tools/dist_train.sh c.py 2'
    )


def standing(tmp_path, iteration, saved=None, **settings):
    info = dict(last_ckpt=str(tmp_path / saved)) if saved else {}
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        message_hub=SimpleNamespace(runtime_info=info),
        train_loop=SimpleNamespace(),
    )
    return interrupt.Standing(runner, iteration, **settings)


def test_what_is_said_of_a_training(tmp_path):
    (tmp_path / 'iter_20.pth').write_bytes(b'')
    assert interrupt.training(standing(tmp_path, 30, 'iter_20.pth'), 'python t.py c.py') == (
        'interrupted at iteration 30; newest checkpoint iter_20.pth; go on with: '
        'python t.py c.py --resume'
    )
    for saved in (None, 'iter_40.pth'):  # one that is not there (yet)
        assert interrupt.training(standing(tmp_path, 30, saved), 'python t.py c.py') == (
            'interrupted at iteration 30; nothing saved yet; start again with: python t.py c.py'
        )
    text = interrupt.training(standing(tmp_path, 30, resumed='x.pth'), 'c --resume x.pth')
    assert 'nothing saved yet since x.pth; start again with: c --resume x.pth' in text
    text = interrupt.training(standing(tmp_path, 4, 'iter_20.pth', validating=True), 'c')
    assert text.startswith('interrupted at iteration 4, in the validation; newest')
    text = interrupt.training(standing(tmp_path, 4, 'iter_20.pth', saving=True), 'c')
    assert 'while saving; go on with: c --resume' in text
    assert 'before the first iteration' in interrupt.training(standing(tmp_path, None), 'c')
    assert 'before the first iteration' in interrupt.training(interrupt.Standing(), 'c')
