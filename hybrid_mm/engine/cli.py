"""What the command-line tools share: options, reading of configs, one-line errors."""

import argparse
import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

AMP_DTYPES = ('float16', 'bfloat16')
TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}


class UserError(Exception):
    """A mistake of the user. The text names the culprit, what was expected and what to do."""


def warn(message: str) -> None:
    """Print a one-line warning, in the first process only."""
    if os.environ.get('RANK', '0') == '0':
        print(f'warning: {message}', file=sys.stderr)


def shorten(names: Sequence[str], count: int = 6) -> str:
    """Join the first names; dots stand for the others."""
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``'; did you mean a, b?'`` for the names next to ``name``, or an empty string."""
    names = sorted(set(names))
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=cutoff)
    return f'; did you mean {", ".join(lower[match] for match in close)}?' if close else ''


def debugging(argv: Sequence[str] | None = None) -> bool:
    """Whether tracebacks are wanted: ``HYBRID_MM_DEBUG=1`` or ``--debug``."""
    argv = sys.argv[1:] if argv is None else argv
    return '--debug' in argv or os.environ.get('HYBRID_MM_DEBUG', '') not in ('', '0')


def tool(func: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Make a tool's ``main(argv)`` end a user's mistake with one ``error:`` line and status 2.

    Other exceptions pass; so do user errors with ``--debug`` or ``HYBRID_MM_DEBUG=1``.
    """

    @functools.wraps(func)
    def main(argv: Sequence[str] | None = None) -> int:
        from hybrid_mm.engine.explain import explain

        try:
            return func(argv) or 0
        except Exception as error:
            message = str(error) if isinstance(error, UserError) else explain(error)
            if message is None or debugging(argv):
                raise
            rank = os.environ.get('RANK', '0')
            where = '' if rank == '0' else f'[rank {rank}] '
            print(f'{where}error: {message}', file=sys.stderr)
            return 2
        finally:
            _leave_process_group()

    return main


def _leave_process_group() -> None:
    """Close the process group, without which torch warns of a leak at exit."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


class _Options(DictAction):
    """``DictAction`` that says what is wrong with ``--cfg-options depth`` instead of failing."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} expects KEY=VALUE, got {value!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError) as error:  # brackets that do not match, or dict()
            parser.error(
                f'{option_string}: cannot read {" ".join(values)} ({error}); write a list as [a,b] '
                'or a,b, and set a dict key by key as name.key=value'
            )


class _Parser(argparse.ArgumentParser):
    """Parser in which ``--amp CONFIG`` does not take the config for the data type."""

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        for i, arg in enumerate(args):
            if arg == '--amp' and args[i + 1 : i + 2] and args[i + 1] not in AMP_DTYPES:
                args[i] = '--amp=auto'
        return super().parse_known_args(args, namespace)


def parser(description: str) -> argparse.ArgumentParser:
    """Parser of a tool, with ``--debug``."""
    result = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        '--debug', action='store_true', help='show the traceback of a user error as well'
    )
    return result


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override settings of the config: key=value, lists as key="[a,b]" or key=a,b, '
        'nested as key="[(a,b),(c,d)]", elements of lists as key.0.name=value',
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``train.py`` and ``test.py`` have in common."""
    parser.add_argument('--work-dir', help='folder of logs, metrics and checkpoints')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', *AMP_DTYPES),
        help='automatic mixed precision, with this data type if one is named '
        '(by default that of the config, else float16 on a GPU and bfloat16 on a CPU)',
    )
    add_config_options(parser)
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='switch off pin_memory of the dataloaders'
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='switch off persistent_workers of the dataloaders',
    )
    parser.add_argument('--seed', type=int, help='random seed (randomness.seed of the config)')
    parser.add_argument(
        '--deterministic', action='store_true', help='deterministic cuDNN algorithms'
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='job launcher; pytorch (torchrun) works on CPU as well, with gloo',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def config_root() -> Path | None:
    """Folder of the configs of this package: of the source tree, else of the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / 'configs', package / '.mim' / 'configs'):
        if root.is_dir():
            return root
    return None


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Raises:
        UserError: there is no such file, it cannot be read, or an option names nothing.
    """
    from hybrid_mm.engine.preflight import check_options

    if not os.path.isfile(path):
        raise UserError(f'config {path} does not exist{_nearest_configs(path)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path}: {type(error).__name__}: {error}') from error
    if options:
        check_options(cfg, options)
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'--cfg-options: {plain_text(error)}') from error
    return cfg


def with_options(cfg: Config, argv: list[str], options: dict | None) -> list[str]:
    """Arguments of a library's script: the config, ``argv``, and ``--cfg-options`` again."""
    pairs = [f'{key}={value}' for key, value in (options or {}).items()]
    return [cfg.filename, *argv, *(['--cfg-options', *pairs] if pairs else [])]


def plain_text(error: Exception) -> str:
    """Text of an exception; ``str`` of a KeyError would quote it."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _nearest_configs(path: str) -> str:
    """Nearest files by name, among the configs of this package and the folder asked for."""
    roots = [root for root in (config_root(), Path(path).parent) if root and root.is_dir()]
    files = {}
    for root, pattern in zip(roots, ('**/*.py', '*.py'), strict=False):
        files.update({file.stem: os.path.relpath(file) for file in root.glob(pattern)})
    stem = Path(path).stem
    close = difflib.get_close_matches(stem, files, n=3, cutoff=0.5)
    return f'; did you mean {", ".join(files[name] for name in close)}?' if close else ''


def task_of(cfg: Config) -> str:
    """Task of a config by its ``default_scope``.

    Returns:
        'detection', 'segmentation' or 'classification'.

    Raises:
        UserError: ``default_scope`` is missing or another one.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise UserError(
            f'default_scope of {cfg.filename} is {scope!r}; expected one of {", ".join(TASKS)}'
        )
    return TASKS[scope]
