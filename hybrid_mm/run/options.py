"""Options that the command-line tools share, and the parser of a tool.

Only the standard library is imported here: a tool prints its help, and refuses a wrong flag, before
anything slow is imported.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

AMP_DTYPES = ('float16', 'bfloat16')
CHECKPOINT = 'checkpoint file, hybrid_mm://NAME, or auto: the published weights of the config'
"""Help of an argument that :func:`hybrid_mm.run.published.checkpoint_of` reads."""


def parser(description: str) -> argparse.ArgumentParser:
    """Parser of a tool, with ``--debug``; the description is printed by ``--help`` as it is."""
    result = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        '--debug', action='store_true', help='show the traceback of a user error as well'
    )
    return result


class _Options(argparse.Action):
    """Collect ``KEY=VALUE`` in a dict; values are read as MMEngine's ``DictAction`` does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, equals, value = item.partition('=')
            if not equals:
                parser.error(f'{option_string} expects KEY=VALUE, got {item!r}')
            try:
                options[key] = _value(value)
            except ValueError as error:
                parser.error(
                    f'{option_string}: cannot read {item} ({error}); write a list as [a,b] or '
                    'a,b, and set a dict key by key as name.key=value'
                )
        setattr(namespace, self.dest, options)


def _value(text: str) -> Any:
    """Value of an option: a number, a truth value, None, a text, or a list or tuple of these.

    Raises:
        ValueError: Brackets do not match, or enclose only the end of an element.
    """
    text = text.strip('\'"').replace(' ', '')
    enclosed = text[:1] + text[-1:] in ('[]', '()') and len(text) > 1
    if not enclosed and ',' not in text:
        return _scalar(text)
    parts = _elements(text)
    if parts != [text]:
        return [_value(part) for part in parts]
    if not enclosed:
        raise ValueError(f'{text} is no list')
    found = [_value(part) for part in _elements(text[1:-1])]
    return tuple(found) if text[0] == '(' else found


def _elements(text: str) -> list[str]:
    """Split a text at the commas that are in no brackets; one at the end has nothing after it."""
    parts, depth = [''], 0
    for character in text:
        depth += (character in '[(') - (character in ')]')
        if depth < 0:
            break
        if character == ',' and not depth:
            parts.append('')
        else:
            parts[-1] += character
    if depth:
        raise ValueError('brackets do not match')
    return parts if parts[-1] else parts[:-1]


def _scalar(text: str) -> Any:
    """A number, a truth value or None if the text is one, else the text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    known = {'true': True, 'false': False}
    return None if text == 'None' else known.get(text.lower(), text)


class _Parser(argparse.ArgumentParser):
    """Parser in which a config after ``--amp`` or ``--wandb`` is not taken for their value."""

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads for `namespace`
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        args = list(sys.argv[1:] if args is None else args)
        namespace = argparse.Namespace() if namespace is None else namespace
        namespace.argv = list(args)  # as the user typed them
        for i, arg in enumerate(args):
            following = args[i + 1 : i + 2]
            if arg == '--amp' and following and following[0] not in AMP_DTYPES:
                args[i] = '--amp=auto'
            elif arg == '--wandb' and following and following[0].endswith(('.py', '.pth')):
                args[i] = '--wandb=hybrid_mm'
        return super().parse_known_args(args, namespace)


def names_onnx(argv: Sequence[str] | None) -> bool:
    """Whether arguments name a model in ONNX, which stands for a config and a checkpoint."""
    return any(arg.lower().endswith('.onnx') for arg in (sys.argv[1:] if argv is None else argv))


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
    """Add the options that ``train.py`` and ``test.py`` have in common."""
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
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show what is otherwise only in the log file: environment, config, hooks, optimizer '
        'settings, tables of classes, warnings of libraries',
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
    """Add ``--tensorboard`` and ``--wandb``."""
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


def add_weights_and_labels(parser: argparse.ArgumentParser) -> None:
    """Add the options that give each of several models its weights and its name."""
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        metavar='FILE',
        help='weights, one per model: a file, hybrid_mm://NAME, auto (the published weights of a '
        "config), or '-' for random ones (default: random)",
    )
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the models')


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the analyses of several backbones have in common."""
    add_weights_and_labels(parser)
    parser.add_argument(
        '--stage',
        type=int,
        default=-1,
        help='index of the map among those that the backbone returns (default: -1, the last)',
    )
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')


def add_feature_options(parser: argparse.ArgumentParser) -> None:
    """Add the preparation of images of which features of the whole are compared."""
    parser.add_argument(
        '--resize', type=int, default=248, help='length of the shorter side (default: 248)'
    )
    parser.add_argument(
        '--size', type=int, default=224, help='side of the crop of the centre (default: 224)'
    )
    parser.add_argument('--batch-size', type=int, default=16, help='images at once (default: 16)')
