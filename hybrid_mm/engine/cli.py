"""What the command-line tools share: options, reading of configs, one-line errors."""

import argparse
import ast
import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

AMP_DTYPES = ('float16', 'bfloat16')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}


class UserError(ValueError):
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
    """Parser in which ``--amp CONFIG`` and ``--wandb CONFIG`` do not take the config for theirs."""

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        for i, arg in enumerate(args):
            following = args[i + 1 : i + 2]
            if arg == '--amp' and following and following[0] not in AMP_DTYPES:
                args[i] = '--amp=auto'
            elif arg == '--wandb' and following and following[0].endswith(('.py', '.pth')):
                args[i] = '--wandb=hybrid_mm'
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


def add_tracking_options(parser: argparse.ArgumentParser) -> None:
    """Add where curves go besides the files of the work dir."""
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='write curves for TensorBoard as well (tensorboard --logdir WORK_DIR)',
    )
    parser.add_argument(
        '--wandb',
        nargs='?',
        const='hybrid_mm',
        metavar='PROJECT',
        help='log to Weights & Biases as well, to this project (default: hybrid_mm); '
        'WANDB_MODE=offline keeps it on this machine',
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add what the analyses of several backbones have in common."""
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        metavar='FILE',
        help="weights, one file per model, '-' for random ones (default: random)",
    )
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the models')
    parser.add_argument(
        '--stage',
        type=int,
        default=-1,
        help='index of the map among those that the backbone returns (default: -1, the last)',
    )
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')


def add_feature_options(parser: argparse.ArgumentParser) -> None:
    """Add how images are prepared for features of whole images."""
    parser.add_argument(
        '--resize', type=int, default=248, help='length of the shorter side (default: 248)'
    )
    parser.add_argument(
        '--size', type=int, default=224, help='side of the crop of the centre (default: 224)'
    )
    parser.add_argument('--batch-size', type=int, default=16, help='images at once (default: 16)')


def torch_device(name: str | None):
    """Device of ``--device``; by default the first GPU if there is one.

    Raises:
        UserError: it is not usable here.
    """
    import torch

    if name is None:
        return torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f'--device {name} is not usable here: {reason}') from error
    return device


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title, title_justify='left')
    for i, name in enumerate(head):
        table.add_column(name, justify='right' if i else 'left', overflow='fold')
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


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


def find_images(path: str | Path) -> list[Path]:
    """The image itself, or all images below a folder, sorted.

    Raises:
        UserError: there is no such file or folder, or no image in it.
    """
    source = Path(path)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f'{path} does not exist; expected an image or a folder of images')
    files = sorted(file for file in source.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f'{path} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    return files


def literal_spec(text: str, where: str = '') -> dict:
    """Read ``dict(type='...', name=value, ...)`` of literals, nested ones included.

    Args:
        text: What the user wrote.
        where: Option that it stood behind, with a space, for messages.

    Raises:
        UserError: it is no such text, or has no type.
    """
    try:
        spec = _literal(ast.parse(text, mode='eval').body)
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{where}{text!r} is no dict(type='...', name=value, ...) of literals"
        ) from error
    if not isinstance(spec, dict) or 'type' not in spec:
        raise UserError(f"{where}{text!r} has no type; write dict(type='...')")
    return spec


def _literal(node: ast.expr):
    """Literal, or ``dict(...)`` of literals."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict' and not node.args:
        return {item.arg: _literal(item.value) for item in node.keywords}
    return ast.literal_eval(node)


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
