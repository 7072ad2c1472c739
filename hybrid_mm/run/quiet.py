"""What a run shows on the terminal, and what goes into its log file only.

MMEngine and its libraries report through loggers, ``warnings`` and ``print``. All three are left to
do so; handlers, filters and a stream of ours decide what reaches the terminal:

* Messages below WARNING from the libraries of the stack are details, except for those in
  :data:`PROGRESS`. Those of other packages and of the user's own modules are shown.
* Warnings and errors are shown, except for those in :data:`NOISE`.
* What is printed is shown, except for what is in :data:`PRINTED`.

Whatever is kept from the terminal is written to the log file of the run.
"""

import argparse
import functools
import logging
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Concatenate, NamedTuple, ParamSpec, TextIO, TypeVar

from mmengine.logging import MMLogger

from hybrid_mm.run.tool import debugging

P = ParamSpec('P')
R = TypeVar('R')

STACK = (
    *('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmpose', 'mmrotate'),
    *('torch', 'torchvision', 'pycocotools', 'xtcocotools'),
)
LARGEST_TABLE = 30  # rows of a table of classes that the terminal shows
_STORED = 2000  # messages that wait for the log file to be there
_LIBRARIES = r'(mmengine|mmcv|mmdet|mmseg|mmpretrain|mmpose|mmrotate)'


class Rule(NamedTuple):
    """Messages of a module.

    Attributes:
        module: Regular expression of the dotted name of a module, or of a package with all in it.
        message: Regular expression that the beginning of the message matches.
        why: Why they are shown or not shown.
        within: Functions, with their modules, in one of which it must be; empty for any.
    """

    module: str
    message: str
    why: str
    within: tuple[str, ...] = ()

    def fits(self, module: str, message: str) -> bool:
        """Whether it is about a message of a module."""
        return bool(
            re.search(rf'(^|\.){self.module}(\.|$)', module)
            and re.match(self.message, message)
            and (not self.within or any(name in self.within for name in _callers()))
        )


PROGRESS = (
    Rule(r'mmengine\.hooks\.logger_hook', r'(?!Exp name:|Text logs)', 'losses and metrics'),
    Rule(r'mmengine\.hooks\.checkpoint_hook', 'Saving checkpoint|The best checkpoint', 'files'),
    Rule(r'mmengine\.hooks\.(early_stopping|profiler)_hook', '', 'the user asked for these hooks'),
    Rule(r'mmengine\.runner\.loops', 'Advance dataloader', 'it may take minutes'),
    Rule(r'(mmdet|mmseg|mmpretrain)\.engine\.hooks', '', 'what changes while it trains'),
)
# of our own messages: what the summary says in other words
SUMMED_UP = (
    Rule(r'hybrid_mm\.run\.total_batch', '', 'the batch is in the summary'),
    Rule(r'hybrid_mm\.(engine\.hooks\.strict_loading|weights\.loading)', '', 'so are the weights'),
    Rule(r'hybrid_mm\.engine\.layer_decay', '', 'so are the learning rates'),
)
NOISE = (
    Rule(
        r'mmseg\.datasets\.transforms\.loading(_onedl)?',
        '`reduce_zero_label` will be deprecated',
        'the transform says so of every config that sets it, which data sets of MMSegmentation do',
    ),
    Rule(
        r'mmseg\.models\.losses\.cross_entropy_loss',
        'Default ``avg_non_ignore`` is False',
        'describes the default with which the papers train',
    ),
    Rule(
        r'mmseg\.models\.builder',
        '``build_loss`` would be deprecated',
        'calls inside of the library',
    ),
    Rule(
        r'mmseg\.engine\.hooks\.visualization_hook',
        'The draw is False',
        'nothing is drawn unless --show or --show-dir asks for it',
    ),
    Rule(
        r'torch\.utils\.data\.(dataloader|_utils\.\w+)',
        'This DataLoader will create',
        'num_workers of a paper on a smaller machine; the dry run measures if reading is too slow',
    ),
    Rule(
        r'torch\.utils\.data\.(dataloader|_utils\.pin_memory)',
        "'pin_memory' argument is set as true but no accelerator",
        'a config for GPUs on a CPU, where the setting does nothing',
    ),
    Rule(
        r'mmengine\.registry\.registry',
        'Failed to search registry with scope "mmrotate" in the "optim_wrapper"',
        "MMRotate has no registry of its own for them; MMEngine's is what it means",
    ),
    Rule(
        r'mmrotate\.structures\.bbox\.rotated_boxes',
        r'UserWarning: The `clip` function does nothing|The `clip` function does nothing',
        'every detector of MMDetection clips its boxes; rotated ones may end outside of the image',
    ),
    Rule(
        r'mmengine\.evaluator\.metric',
        'The prefix is not set in metric class',
        'only names metrics; the metrics of MMSegmentation have no prefix by design',
    ),
    Rule(
        r'mmengine\.runner\.runner',
        '`(save|resume)_param_scheduler` is True but',
        'a config without a schedule has none to save or resume',
    ),
    Rule(
        r'mmdet\.models\.dense_heads\.\w+',
        'DeprecationWarning: anchor_generator is deprecated',
        'the name that the configs of MMDetection use',
    ),
    Rule(
        r'mmdet\.evaluation\.metrics\.(faster_coco|lvis)_metric',
        'faster_coco_eval is not installed|mmlvis is deprecated',
        'an optional package of a metric that says so when it is used',
    ),
    Rule(
        r'mmengine\.fileio\.(file_client|backends\.\w+)',
        '"(FileClient|HardDiskBackend)"',
        'calls inside of the libraries',
    ),
    Rule(
        rf'({_LIBRARIES}\.\S*|importlib)',  # MMEngine loads pkg_resources again and again
        r'"file_client_args" will be deprecated|pkg_resources is deprecated',
        'calls inside of the libraries',
    ),
    Rule(
        rf'({_LIBRARIES}|torch)',
        r'`?torch\.\S+ is deprecated|You are using `torch\.load`|torch\.meshgrid: in an upcoming'
        r'|__floordiv__ is deprecated|The given NumPy array is not writable'
        r'|To copy construct from a tensor|(TypedStorage|pkg_resources) is deprecated',
        'calls inside of the libraries that newer versions of torch discourage',
    ),
    Rule(
        r'torch\.autograd\.graph',
        'Grad strides do not match bucket view strides',
        'costs a copy of small weights; the layout is that of the convolution algorithm',
    ),
    Rule(
        r'mmengine\.optim\.scheduler\.param_scheduler',
        r'Detected call of `scheduler\.step\(\)` before',
        "MMEngine's loops step both in order; the first of several accumulated gradients looks so",
    ),
    Rule(
        r'mmengine\.utils\.dl_utils\.setup_env',
        'Setting (OMP|MKL)_NUM_THREADS environment variable',
        'the number is right for several processes, and all of them say so',
    ),
    Rule(
        r'mmengine\.model\.wrappers\.distributed',
        '`broadcast_buffers` is deprecated',
        'the name that MMEngine gives the argument of torch',
    ),
    Rule(
        r'mmengine\.structures\.pixel_data',
        'The shape of value will convert from',
        'label maps that the library itself hands over',
    ),
    Rule(
        r'mmengine\.model\.base_module',
        r'init_weights of \S+ has been called more than once',
        'heads that share modules do so by design; the values are the same',
    ),
    Rule(
        r'mmdet\.models\.dense_heads\.\w+',
        r'DeprecationWarning: (anchor_generator|`?num_anchors`?)',
        'the name that configs of MMDetection use',
    ),
    Rule(
        r'mmengine\.visualization\.visualizer',
        r'(`Visualizer` backend is not initialized|Failed to add <class)',
        'pictures that nobody asked for',
    ),
    Rule(
        r'mmengine\.visualization\.visualizer',
        r'Warning: The \w+ is out of bounds',
        'boxes, masks and texts at the edge of a picture are drawn as far as they are in it',
    ),
)
PRINTED = (
    Rule(
        r'(mmdet|mmseg|mmpretrain|mmrotate)\.datasets(\.\w+)?',
        'Could not import OneDL',
        'a commercial package for data sets that no config of this package uses',
    ),
    Rule(r'mmengine\.runner\.checkpoint', 'Loads checkpoint by', 'the summary names the file'),
    Rule(
        r'mmengine\.runner\.checkpoint',
        'The model and loaded state dict do not match exactly',
        'hooks of ours say so in one line; nobody does of other files, as those of a teacher',
        within=(
            'mmengine.runner.runner.load_checkpoint',
            'mmengine.hooks.ema_hook.after_load_checkpoint',
        ),
    ),
    Rule(
        r'(py|xt)cocotools\.coco(eval)?',
        r'loading annotations into memory|Loading and preparing results|[Dd](one|ONE) \(t='
        r'|creating index|index created|Running per image evaluation|Evaluate annotation type'
        r'|Accumulating evaluation results|converting ground truth|\d+/\d+$',
        'steps that take seconds',
    ),
    Rule(
        r'(py|xt)cocotools\.cocoeval',
        r' Average (Precision|Recall)',
        'the same figures follow in one line of MMEngine',
    ),
    Rule(
        r'mmdet\.(datasets|evaluation)\.\S+',
        r'loading annotations into memory|Loading and preparing results|[Dd](one|ONE) \(t='
        r'|creating index|index created|Running per image evaluation|Accumulating evaluation',
        'copies of what pycocotools does',
    ),
)


@contextmanager
def terminal(args: argparse.Namespace) -> Iterator[None]:
    """Context in which the details of a run go into its log file only.

    Args:
        args: Flags of the tool; with ``--verbose`` or ``--debug`` the terminal shows all.
    """
    global _active
    if getattr(args, 'verbose', False) or debugging(args.argv) or _active is not None:
        yield
        return
    _active = _Terminal()
    try:
        with _active.applied():
            yield
    finally:
        _active = None


def quietly(
    run: Callable[Concatenate[argparse.Namespace, P], R],
) -> Callable[Concatenate[argparse.Namespace, P], R]:
    """Make a function of flags run in :func:`terminal`."""

    @functools.wraps(run)
    def wrapped(flags: argparse.Namespace, *args: P.args, **kwargs: P.kwargs) -> R:
        with terminal(flags):
            return run(flags, *args, **kwargs)

    return wrapped


def log_only(text: str, logger: logging.Logger, level: int = logging.INFO) -> None:
    """Write a message to the log files of a logger, not to the terminal."""
    record = logger.makeRecord(logger.name, level, '(run)', 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and level >= handler.level:
            handler.handle(record)


def origin() -> str:
    """Name of the module that logs or prints, for a caller inside of the logging."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get('__name__', ''))
        if name != __name__ and name != 'mmengine.logging.logger' and name != 'logging':
            return name
        frame = frame.f_back
    return ''


def _callers() -> Iterator[str]:
    """Functions that are being run, with their modules, as ``package.module.function``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield f'{frame.f_globals.get("__name__", "")}.{frame.f_code.co_name}'
        frame = frame.f_back


class _Terminal:
    """Handlers, filters and streams of the time of a run.

    MMEngine names its loggers by the time; they are noticed at the first record of any.
    """

    def __init__(self) -> None:
        self._known: dict[int, MMLogger] = {}
        self._files: list[logging.FileHandler] = []
        self._waiting: deque[logging.LogRecord] = deque(maxlen=_STORED)
        self._undo: list[Callable[[], None]] = []

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which they are in their places."""
        make, show, stdout = logging.getLogRecordFactory(), warnings.showwarning, sys.stdout

        def noticing(*args: Any, **kwargs: Any) -> logging.LogRecord:
            self._notice()
            return make(*args, **kwargs)

        def showwarning(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            module = re.sub(r'\.py$', '', filename).replace('/', '.').replace('\\', '.')
            if any(rule.fits(module, str(message)) for rule in NOISE):
                text = warnings.formatwarning(message, category, filename, lineno, line)
                self.keep(text.rstrip(), logging.WARNING)
            else:
                show(message, category, filename, lineno, file, line)

        stream = _Stream(stdout, self.keep)
        logging.setLogRecordFactory(noticing)
        warnings.showwarning = showwarning
        sys.stdout = stream
        try:
            yield
        finally:
            logging.setLogRecordFactory(make)
            if warnings.showwarning is showwarning:
                warnings.showwarning = show
            if sys.stdout is stream:
                sys.stdout = stdout
            for undo in self._undo:
                undo()

    def keep(self, text: str, level: int = logging.INFO) -> None:
        """Write to the log file what the terminal does not show."""
        self._notice()
        self._store(logging.LogRecord('mmengine', level, '(run)', 0, text, (), None))

    def _store(self, record: logging.LogRecord) -> None:
        if not self._files:
            self._waiting.append(record)
        for file in self._files:
            if record.levelno >= file.level:
                file.handle(record)

    def _notice(self) -> None:
        """Look for loggers that are new."""
        for logger in list(MMLogger._instance_dict.values()):
            if id(logger) not in self._known:
                self._attach(logger)

    def _attach(self, logger: MMLogger) -> None:
        self._known[id(logger)] = logger
        files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
        for handler in logger.handlers:
            shows = isinstance(handler, logging.StreamHandler) and handler not in files
            if shows and handler.level >= logging.INFO:  # DEBUG: the user wants to see it all
                console = _Console(handler)
                handler.addFilter(console)
                self._undo.append(lambda h=handler, f=console: h.removeFilter(f))  # type: ignore[misc]
        if files:
            self._files += [file for file in files if file not in self._files]
            waiting, self._waiting = self._waiting, deque(maxlen=_STORED)
            for record in waiting:
                self._store(record)
        else:  # the one that MMEngine makes before there is a run
            copies = _Copies(self._store)
            logger.addHandler(copies)
            self._undo.append(lambda: logger.removeHandler(copies))


class _Copies(logging.Handler):
    """Give the records of a logger without a file to another one."""

    def __init__(self, store: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.INFO)
        self._store = store

    def emit(self, record: logging.LogRecord) -> None:
        self._store(record)


class _Console(logging.Filter):
    """Let progress, warnings and messages of others pass to the terminal."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is for the terminal."""
        if getattr(record, 'for_terminal', False):
            return True
        module, message = origin(), record.getMessage()
        if record.levelno >= logging.WARNING:
            return not any(rule.fits(module, message) for rule in NOISE)
        if module.split('.')[0] == 'hybrid_mm':
            return not any(rule.fits(module, message) for rule in SUMMED_UP)
        if module.split('.')[0] not in STACK:
            return True
        if '.evaluation.' in module and (rows := table_rows(message)) is not None:
            if len(rows) <= LARGEST_TABLE:
                return True
            self._show(extremes(rows), record)
            return False
        if not any(rule.fits(module, message) for rule in PROGRESS):
            return False
        if (brief := without_classes(message)) != message:
            self._show(brief, record)
            return False
        return True

    def _show(self, text: str, record: logging.LogRecord) -> None:
        shown = logging.makeLogRecord(record.__dict__ | dict(msg=text, args=(), for_terminal=True))
        self._handler.handle(shown)


def without_classes(text: str) -> str:
    """A line of metrics without those of single classes, if there are many."""
    single = re.findall(r'\S+_precision: \S+\s*', text)  # CocoMetric with classwise=True
    if len(single) > LARGEST_TABLE:
        text = re.sub(r'\S+_precision: \S+\s*', '', text)
        text = f'{text.rstrip()}  ({len(single)} classes in the log file)'
    return re.sub(r'\[(?:[^][,]*,){30,}[^][]*\]', '[in the log file]', text)  # one list of all


def table_rows(text: str) -> list[list[str]] | None:
    """Cells of a table that is drawn with ``|`` and ``+--``, head first; None for other text."""
    lines = text.strip().splitlines()
    if len(lines) < 3 or not lines[0].startswith('+-'):
        return None
    return [[c.strip() for c in line.strip('|').split('|')] for line in lines if line[0] == '|']


def extremes(rows: list[list[str]], count: int = 3) -> str:
    """The lowest and highest classes of a table by its first column of numbers, in one line."""
    head, *body = rows
    values = []
    for name, *cells in body:
        number = next((float(c) for c in cells[:1] if re.fullmatch(r'-?\d+(\.\d+)?', c)), None)
        if number is not None:
            values.append((number, name))
    what = f'{len(body)} classes (table in the log file)'
    if len(values) < 2 * count:
        return what
    values.sort()
    low = ', '.join(f'{name} {number:g}' for number, name in values[:count])
    high = ', '.join(f'{name} {number:g}' for number, name in values[: -count - 1 : -1])
    return f'{head[1]} of {what}: highest {high}; lowest {low}'


class _Stream:
    """Standard output without the lines of :data:`PRINTED`, which are kept elsewhere."""

    def __init__(self, stream: TextIO, keep: Callable[[str], None]) -> None:
        self._stream, self._keep, self._hidden = stream, keep, False

    def write(self, text: str) -> int:
        """Write a text, unless its module and its beginning are in the list."""
        if text == '\n' and self._hidden:  # the end of a line that print() writes by itself
            self._hidden = False
            return 1
        module = origin() if text.strip() else ''
        if module.split('.')[0] in STACK and any(r.fits(module, text) for r in PRINTED):
            self._keep(text.rstrip('\n'))
            self._hidden = not text.endswith('\n')
            return len(text)
        self._hidden = False
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_active: _Terminal | None = None
