"""Ctrl-C and SIGTERM: an orderly end, and one line that says how to go on.

SIGTERM is what Slurm sends before the time limit, and what torchrun sends to all processes when one
of them ends. The first signal ends the run like an error, so that locks, files and workers are
released, but not within a checkpoint hook, which gets to finish its file. A second one ends the
process at once.
"""

import logging
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import distributed

from hybrid_mm.run.quiet import log_only

SIGNALS = (signal.SIGINT, signal.SIGTERM)
COMMAND = 'HYBRID_MM_COMMAND'  # set by tools/dist_train.sh and its siblings
_SAME = 0.5  # seconds in which a second signal counts as the first, which came by two ways
_GRACE = 2.0  # seconds to wait for our own signal when others of the run are gone
# seconds for the end of a process of several, which may wait for one that is gone; after 30 s
# torchrun and Slurm send SIGKILL
_END = 25.0
# errors of a process whose workers or siblings got the signal first
_COLLATERAL = re.compile(
    r'DataLoader worker .* (killed by signal: (Interrupt|Terminated)|exited unexpectedly)'
    r'|Connection (closed|reset) by|gloo|NCCL|Broken pipe',
    re.DOTALL | re.IGNORECASE,
)


_state: '_State | None' = None


class Interrupted(KeyboardInterrupt):
    """A signal that ends the run."""


@dataclass
class Standing:
    """How far a run has come.

    Attributes:
        runner: None if there is none yet.
        iteration: Number of training iterations that are done; None before the training.
        validating: Whether a validation is going on.
        batches: Number of batches that were tested.
        resumed: Checkpoint that the training goes on from.
        saving: Whether the process ends while it writes a checkpoint.
    """

    runner: Runner | None = None
    iteration: int | None = None
    validating: bool = False
    batches: int = 0
    resumed: str | None = None
    saving: bool = False


Describe = Callable[[Standing, str], str]


@contextmanager
def interruptible(describe: Describe, argv: Sequence[str] | None = None) -> Iterator[None]:
    """Context that ends at SIGINT or SIGTERM with one line and exit status 130 or 143.

    Args:
        describe: Text of the line, from how far the run has come and the command line.
        argv: Arguments of the tool; by default those of the process.

    Raises:
        SystemExit: On leaving after a signal.
    """
    global _state
    if threading.current_thread() is not threading.main_thread() or _state is not None:
        yield
        return
    state = _state = _State(describe, list(sys.argv[1:] if argv is None else argv))
    before = {number: signal.signal(number, state.handle) for number in SIGNALS}
    try:
        yield
    except BaseException as error:
        number = state.behind(error)
        if number is None:
            state.note(error)
            raise
        state.say()
        raise SystemExit(128 + number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state = None


def watch(runner: Runner, resumed: str | None = None) -> None:
    """Make a runner known to the context, and let its checkpoint hooks finish what they begin.

    Args:
        runner: With all of its hooks that save.
        resumed: Checkpoint that its training goes on from.
    """
    if _state is None:
        return
    _state.standing = Standing(runner, resumed=resumed)
    runner.register_hook(_WatchHook(_state))
    vars(runner)['save_checkpoint'] = _state.finishing(runner.save_checkpoint)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            for name in ('after_train_iter', 'after_train_epoch', 'after_val_epoch'):
                vars(hook)[name] = _state.finishing(getattr(hook, name))


class _State:
    """The signals of this process, and the run that they end."""

    def __init__(self, describe: Describe, argv: list[str]) -> None:
        self.standing = Standing()
        self._number: int | None = None
        self._describe, self._argv = describe, argv
        self._pid, self._since, self._inside, self._said = os.getpid(), 0.0, 0, False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if os.getpid() != self._pid:  # in a worker, which has inherited this
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # who reads from a worker ends it
        now = time.monotonic()
        if self._number is None:
            self._number, self._since = number, now
            if hasattr(signal, 'SIGCHLD'):  # torch's handler raises when workers end
                signal.signal(signal.SIGCHLD, lambda *_: None)
            if distributed.is_available() and distributed.is_initialized():
                end = threading.Timer(_END, os._exit, [128 + number])
                end.daemon = True
                end.start()
            if not self._inside:
                raise Interrupted
            if _is_first():
                _print('finishing the checkpoint; a second Ctrl-C ends at once')
        elif now - self._since > _SAME:
            self.standing.saving = self._inside > 0
            self.say()
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(128 + number)

    def check(self) -> None:
        """Raise what a signal has raised in a place that swallows exceptions, as ``__del__``."""
        if self._number is not None and not self._inside:
            raise Interrupted

    def finishing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that a signal does not interrupt, but ends the run after it."""

        @wraps(function)
        def finished(*args: Any, **kwargs: Any) -> Any:
            self._inside += 1
            try:
                result = function(*args, **kwargs)
            finally:
                self._inside -= 1
            self.check()
            return result

        return finished

    def behind(self, error: BaseException) -> int | None:
        """The signal that is behind an exception, if any."""
        if self._number is None and isinstance(error, KeyboardInterrupt):
            return signal.SIGINT
        if self._number is None and isinstance(error, Exception) and _COLLATERAL.search(str(error)):
            with suppress(Interrupted):
                time.sleep(_GRACE)
        return self._number

    def note(self, error: BaseException) -> None:
        """Write the traceback of an error that ends the run to its log file."""
        if self.standing.runner is not None and isinstance(error, Exception):
            text = ''.join(traceback.format_exception(error)).rstrip()
            log_only(
                f'the run ends with an error:\n{text}', self.standing.runner.logger, logging.ERROR
            )

    def say(self) -> None:
        """Print the line, once, in the first process of a run, and write it to the log file."""
        if self._said or not _is_first():
            return
        self._said = True
        try:
            line = self._describe(self.standing, command_line(self._argv))
        except Exception as error:  # the run ends in any case; half a runner may be all there is
            line = f'interrupted ({type(error).__name__}: {error})'
        with suppress(RuntimeError):  # the signal came within a print
            _print(line)
        if self.standing.runner is not None:
            log_only(line, self.standing.runner.logger, logging.WARNING)


def _in_a_worker() -> None:
    """Let a forked worker end in silence when the process that reads from it is gone."""
    shown = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            shown(kind, error, trace)

    if _state is not None:
        sys.excepthook = excepthook


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_in_a_worker)


class _WatchHook(Hook):
    """Note how far a run has come, and look between two batches whether a signal was lost."""

    priority = 'HIGHEST'

    def __init__(self, state: _State) -> None:
        self._state = state

    def before_train(self, runner: Runner) -> None:
        """Note that the training begins."""
        self._state.standing.iteration = runner.iter

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the place."""
        self._state.standing.iteration = runner.iter
        self._state.check()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note that the step is done; MMEngine counts it after its hooks."""
        self._state.standing.iteration = runner.iter + 1

    def before_val(self, runner: Runner) -> None:
        """Note that a validation begins."""
        self._state.standing.validating = True

    def after_val(self, runner: Runner) -> None:
        """Note that it is over."""
        self._state.standing.validating = False

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look for a lost signal."""
        self._state.check()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the place."""
        self._state.standing.batches = batch_idx
        self._state.check()


def _is_first() -> bool:
    """Whether this is the first process of a run, or the only one."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def _print(line: str) -> None:
    # a terminal shows ^C where the cursor is
    print(f'{chr(10) if sys.stderr.isatty() else ""}{line}\n', end='', file=sys.stderr, flush=True)


def command_line(argv: Sequence[str]) -> str:
    """The command of this process as the user typed it, quoted for a shell."""
    if os.environ.get(COMMAND):
        return os.environ[COMMAND].strip()
    tool = sys.argv[0]
    python = os.path.basename(sys.executable)
    found = shutil.which(python)
    if found is None or not os.path.samefile(found, sys.executable):
        python = sys.executable
    words = [python, tool, *argv]
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        words = _launcher(tool) or ['torchrun', '...', *words[1:]]
    return shlex.join(words)


def _launcher(tool: str) -> list[str]:
    """Command line of the torchrun that has started this process, where the system tells it."""
    with suppress(OSError):
        words = Path(f'/proc/{os.getppid()}/cmdline').read_bytes().decode().split('\0')[:-1]
        if tool in words:
            if os.path.basename(words[1]) == 'torchrun':
                words = ['torchrun', *words[2:]]
            elif os.path.basename(words[0]).startswith('python'):
                words[0] = os.path.basename(words[0])
            return words
    return []


def resuming(command: str) -> str:
    """A command line of train.py with a plain ``--resume``, in place of one with a file."""
    words, kept = shlex.split(command), []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        flag, _, value = word.partition('=')
        if len(flag) > 3 and '--resume'.startswith(flag):
            following = words[position : position + 1]
            if not value and following and not following[0].startswith('-'):
                position += 1
            continue
        kept.append(word)
    return shlex.join([*kept, '--resume'])


def training(standing: Standing, command: str) -> str:
    """What is said of a training: how far it came, what is saved, and how it goes on."""
    runner = standing.runner
    if runner is None or standing.iteration is None:
        return f'interrupted before the first iteration; start again with: {command}'
    loop, where = runner.train_loop, f'iteration {standing.iteration}'
    if isinstance(loop, EpochBasedTrainLoop):
        where = f'epoch {min(loop.epoch + 1, loop.max_epochs)} of {loop.max_epochs}, {where}'
    if standing.validating:
        where += ', in the validation'
    if standing.saving:  # --resume finds the newest that is whole
        return f'interrupted at {where}, while saving; go on with: {resuming(command)}'
    newest = newest_checkpoint(runner)
    if newest is not None:
        return (
            f'interrupted at {where}; newest checkpoint {newest}; go on with: {resuming(command)}'
        )
    since = f' since {standing.resumed}' if standing.resumed else ''
    return f'interrupted at {where}; nothing saved yet{since}; start again with: {command}'


def testing(standing: Standing, command: str) -> str:
    """What is said of a test, of which nothing is kept."""
    if standing.runner is None or not standing.batches:
        return f'interrupted before the first batch; start again with: {command}'
    total = len(standing.runner.test_dataloader)
    return (
        f'interrupted after {standing.batches} of {total} batches, no metrics; start again with: '
        f'{command}'
    )


def dry_running(standing: Standing, command: str) -> str:
    """What is said of a dry run."""
    return f'interrupted; a dry run saves nothing; start again with: {command}'


def newest_checkpoint(runner: Runner) -> str | None:
    """Name of the checkpoint that this run has saved last, with its folder if that is another."""
    path = str(runner.message_hub.runtime_info.get('last_ckpt') or '')
    if '://' in path:
        return path
    if not os.path.isfile(path):
        return None
    same = os.path.realpath(os.path.dirname(path)) == os.path.realpath(runner.work_dir)
    return os.path.basename(path) if same else path
