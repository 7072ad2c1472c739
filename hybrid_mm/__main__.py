"""``python -m hybrid_mm``: list the zoo, write a config for your data, start your own project."""

import argparse
import shlex
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

_LIST = """\
Print the backbones and configs of the zoo.

  python -m hybrid_mm list                       all
  python -m hybrid_mm list 'van-b2 upernet'      those with both words (* and ? as in file names)
  python -m hybrid_mm list pelk --json           as JSON, with all sources of the accuracies

Projects of your own in the folders of HYBRID_MM_ZOO (see `new-project`) are listed as well.
"""
_NEW = """\
Write a config for a data set of your own, after reading its classes and sizes.

  python -m hybrid_mm new --backbone pelk-tiny --head mask-rcnn --data my_coco/ --out mine.py
  python -m hybrid_mm new --backbone van-b0 --head upernet --data my_masks/ --out mine.py

COCO: a file in the folder, in annotations/ or next to the images, with train or val in its name or
folder, e.g. annotations/instances_train2017.json + train2017/, train.json + train/, or
train/_annotations.coco.json + valid/_annotations.coco.json. Label maps: images/{train,val} with
annotations/, masks/ or labels/{train,val}, or train/images with train/masks; pixels hold the number
of the class, the names are in classes.txt; 255 is ignored, or the class called "unlabelled" or
"void" (not "background", which is a class).

Then: python tools/train.py mine.py --dry-run
"""
_NEW_PROJECT = """\
Write a repository for a network of your own, outside of this package: an operator with its
formula, a layer, a network, configs of a detector and a segmenter, tests with the contract of our
backbones, a benchmark, and an entry for `list`. All of it runs as written; replace what is yours.

  python -m hybrid_mm new-project ~/my_net
"""
_WEIGHTS = """\
Published weights, which configs name as hybrid_mm://NAME.

  python -m hybrid_mm weights list                         all: what can be downloaded, what not
  python -m hybrid_mm weights list van manual              those with both words (* and ? work)
  python -m hybrid_mm weights get van-b0_in1k 'nat-*_in1k'
  python -m hybrid_mm weights get configs/van/*.py --to DIR
                                                           all that these configs start from
  python -m hybrid_mm weights path van-b0_in1k             the file on this machine
  python -m hybrid_mm weights check FILE                   which network and layout is this?

Files are looked for in checkpoints/, in the folders of HYBRID_MM_WEIGHTS and in torch's cache.
"""
_RUN = """\
Run a program of other packages with the workarounds of this one in place from the start: mmdet
3.3.0 and mmseg 1.2.2 then take mmcv 2.2, which they refuse otherwise.

  python -m hybrid_mm run python PATH/train.py mine.py
  python -m hybrid_mm run torchrun --nproc_per_node 8 PATH/train.py mine.py --launcher pytorch
  python -m hybrid_mm run mim train mmdet mine.py
  python -m hybrid_mm run jupyter lab

Our own tools need none of this, nor does a script or notebook that imports hybrid_mm first.
"""
_HEADS = ('mask-rcnn', 'cascade-mask-rcnn', 'retinanet', 'upernet', 'semantic-fpn')


@tool
def main(argv: list[str] | None = None) -> int:
    """Print the zoo, write a config or a project, get weights, run or find tools."""
    parser = options.parser(__doc__)
    parser.prog = 'python -m hybrid_mm'
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='list|new|new-project|weights|run|tools'
    )
    _add_list(commands)
    _add_new(commands)
    _add_new_project(commands)
    _add_weights(commands)
    _add_run(commands)
    commands.add_parser('tools', help='print the folder of the tools: train.py, test.py, ...')
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    if args.command == 'list':
        from hybrid_mm.zoo.listing import listing

        tables = (args.only,) if args.only else ('backbones', 'configs')
        listing(' '.join(args.pattern), args.json, tables)
        return 0
    if args.command == 'weights' and args.action == 'list':
        from hybrid_mm.zoo.weights_list import list_weights

        list_weights(' '.join(args.pattern), args.json)
        return 0
    if args.command == 'weights' and args.action == 'path':
        from hybrid_mm.zoo.weights_list import print_path

        return print_path(args.name)
    if args.command == 'weights':
        from hybrid_mm.zoo.weights_commands import weights_command

        return weights_command(args)
    if args.command == 'new-project':
        from hybrid_mm.zoo.new_project import new_project, next_steps

        print(next_steps(args.folder, new_project(args.folder, args.name)))
        return 0
    if args.command == 'run':
        from hybrid_mm.commands import run_with

        return run_with.run(args.words)
    if args.command == 'tools':
        from hybrid_mm.run.config_folder import installed_configs

        print(installed_configs().parent / 'tools')
        return 0

    from hybrid_mm.commands.new import run

    run(args, f'python -m hybrid_mm {shlex.join(argv)}')
    return 0


def _add_list(commands) -> None:
    parser = commands.add_parser(
        'list',
        help='print backbones and configs',
        description=_LIST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'pattern', nargs='*', default=[], help='words of names, heads, data sets or families'
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument(
        '--only', choices=('backbones', 'configs'), help='print these only (default: both)'
    )


def _add_new(commands) -> None:
    parser = commands.add_parser(
        'new',
        help='write a config for your own data',
        description=_NEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--backbone', required=True, help='e.g. van-b0, nat-mini; `list --only backbones` has all'
    )
    parser.add_argument('--head', required=True, choices=_HEADS, help='detector or decoder')
    parser.add_argument('--data', required=True, metavar='DIR', help='folder of the data set')
    parser.add_argument('--out', required=True, metavar='FILE.py', help='config to write')
    parser.add_argument(
        '--force',
        action='store_true',
        help='overwrite FILE.py, and with --holdout the files FILE_train and FILE_val next to it',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        default='auto',
        help='weights of the backbone: a file in our or the official layout, an address, '
        'hybrid_mm://NAME, none (from scratch), or auto (the default): what the configs of the zoo '
        'start from, if it is published or on this machine, else none',
    )
    for split in ('train', 'val'):
        parser.add_argument(
            f'--{split}',
            nargs=2,
            metavar=('ANNOTATIONS', 'IMAGES'),
            help=f'COCO file (or folder of label maps) and folder of images of the {split} split, '
            'relative to DIR, if they are not found automatically',
        )
    parser.add_argument(
        '--holdout',
        type=_share,
        metavar='SHARE',
        help='share of the training images to validate on, if there is no split for it, e.g. 0.2',
    )
    parser.add_argument(
        '--classes',
        type=_names,
        metavar='A,B,...',
        help='names of the classes (COCO: those to train, default: all)',
    )
    parser.add_argument(
        '--empty-classes',
        choices=('drop', 'keep'),
        help='COCO: what to do with categories that have no box in training (default: an error)',
    )
    parser.add_argument(
        '--ignore-index',
        type=_label,
        metavar='N',
        help='label maps: value of pixels that do not count (default: the class called '
        'unlabelled, void, ignore or alike, else 255, with which all classes are trained)',
    )
    parser.add_argument(
        '--batch-size',
        type=_positive,
        metavar='N',
        help='images per step (default: 2 with boxes, 4 with label maps)',
    )
    parser.add_argument(
        '--channels',
        type=_channels,
        metavar='N|I,J,...',
        help='channels of the images, which the network then takes as they are: the number of all, '
        'or those to take, from 0, as 3,2,1,7 (default: three of 8 bits, as colours; arrays .npy '
        'and TIFF files of 2 or more than 4 channels: all)',
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--iterations',
        type=_positive,
        metavar='N',
        help='length of the training; warm-up, decay, evaluation and checkpoints follow it '
        '(default: from the number of images)',
    )
    length.add_argument(
        '--epochs', type=_positive, metavar='N', help='length in passes over the training images'
    )
    parser.add_argument(
        '--scale',
        type=_positive,
        nargs=2,
        metavar=('LONG', 'SHORT'),
        help='sides that images are resized to (default: from their sizes)',
    )


def _add_new_project(commands) -> None:
    parser = commands.add_parser(
        'new-project',
        help='write a repository for a network of your own',
        description=_NEW_PROJECT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', metavar='DIR', help='new folder')
    parser.add_argument(
        '--name', metavar='NAME', help='name of the package (default: that of the folder)'
    )


def _add_weights(commands) -> None:
    parser = commands.add_parser(
        'weights',
        help='list, download and find published weights',
        description=_WEIGHTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest='action', required=True, metavar='list|get|path|check')
    listed = actions.add_parser('list', help='print what is published, and what is here')
    listed.add_argument(
        'pattern', nargs='*', default=[], help='words of names, trees, cases or licences'
    )
    listed.add_argument('--json', action='store_true', help='print JSON, with all addresses')
    get = actions.add_parser('get', help='download what is not here')
    get.add_argument(
        'names',
        nargs='+',
        metavar='NAME',
        help='names, patterns of names, or config files: all that their training starts from',
    )
    get.add_argument(
        '--to', metavar='DIR', help='copy the files there as well, for HYBRID_MM_WEIGHTS=DIR'
    )
    get.add_argument(
        '--auto',
        action='store_true',
        help='of config files also their own published weights (tools/test.py CONFIG auto)',
    )
    path = actions.add_parser('path', help='print where the file is; status 1 if it is not here')
    path.add_argument('name', metavar='NAME', help='name, with or without hybrid_mm://')
    check = actions.add_parser('check', help='say of which network and in which layout files are')
    check.add_argument(
        'files', nargs='+', metavar='FILE', help='files, or hybrid_mm://NAME of what is here'
    )


def _add_run(commands) -> None:
    parser = commands.add_parser(
        'run',
        help="run another package's program with our workarounds",
        description=_RUN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'words',
        nargs=argparse.PARSER,
        metavar='PROGRAM ARGUMENTS',
        help='what you would type without `python -m hybrid_mm run`',
    )


def _channels(text: str) -> int | list[int]:
    parts = [part for part in text.split(',') if part.strip()]
    if not parts or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f'expected a number, or numbers from 0, got {text!r}')
    numbers = [int(part) for part in parts]
    if ',' in text:
        return numbers
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f'expected at least 1, got {text}')
    return numbers[0]


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'expected a number between 0 and 1, got {text}')
    return value


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',')]
    if not all(names):
        raise argparse.ArgumentTypeError(f'expected names with commas between them, got {text!r}')
    return names


def _label(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 255:
        raise argparse.ArgumentTypeError(f'expected a label from 0 to 255, got {text}')
    return value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected a positive whole number, got {text}')
    return value


if __name__ == '__main__':
    sys.exit(main())
