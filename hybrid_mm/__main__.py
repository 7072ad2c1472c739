"""``python -m hybrid_mm``: list the zoo, and write configs for your own data."""

import argparse
import shlex
import sys

from hybrid_mm.errors import printable
from hybrid_mm.run import options
from hybrid_mm.run.tool import tool
from hybrid_mm.zoo import new_config
from hybrid_mm.zoo.heads import check_head
from hybrid_mm.zoo.listing import listing
from hybrid_mm.zoo.new_backbone import find_backbone
from hybrid_mm.zoo.plan import make_plan
from hybrid_mm.zoo.user_data import read_data
from hybrid_mm.zoo.weights_commands import add_weights, weights_command

_LIST = """\
Print the backbones and configs of the zoo.

  python -m hybrid_mm list                       all
  python -m hybrid_mm list 'van-b2 upernet'      those with both words (* and ? as in file names)
  python -m hybrid_mm list pelk --json           as JSON, with all sources of the accuracies
"""
_NEW = """\
Write a config for a data set of your own, after reading its classes and sizes.

  python -m hybrid_mm new --backbone pelk-tiny --head mask-rcnn --data my_coco/ --out mine.py
  python -m hybrid_mm new --backbone van-b0 --head upernet --data my_masks/ --out mine.py

COCO: a file in the folder, in annotations/ or beside the images whose name or folder says train or
val, e.g. annotations/instances_train2017.json + train2017/, train.json + train/, or
train/_annotations.coco.json + valid/_annotations.coco.json. Label maps: images/{train,val} with
annotations/, masks/ or labels/{train,val}, or train/images with train/masks; pixels hold the number
of the class, the names are in classes.txt; 255 is ignored, or the class called "unlabelled" or
"void" (not "background", which is a class).

Then: python tools/train.py mine.py --dry-run
"""
_HEADS = ('mask-rcnn', 'cascade-mask-rcnn', 'retinanet', 'upernet', 'semantic-fpn')


@tool
def main(argv=None):
    """Print the zoo (``list``), write a config for a data set (``new``), or get ``weights``."""
    parser = options.parser(__doc__)
    parser.prog = 'python -m hybrid_mm'
    commands = parser.add_subparsers(dest='command', required=True, metavar='list|new|weights')
    _add_list(commands)
    _add_new(commands)
    add_weights(commands)
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    if args.command == 'list':
        tables = (args.only,) if args.only else ('backbones', 'configs')
        listing(' '.join(args.pattern), args.json, tables)
    elif args.command == 'weights':
        return weights_command(args)
    else:
        _new(args, f'python -m hybrid_mm {shlex.join(argv)}')


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
        help='images a step (default: 2 with boxes, 4 with label maps)',
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
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected a positive number, got {text}')
    return value


def _new(args, command: str) -> None:
    new_config.check_out(args.out, args.force)
    data = read_data(
        args.data,
        args.train,
        args.val,
        args.holdout,
        args.classes,
        args.ignore_index,
        args.empty_classes,
    )
    check_head(args.head, data)
    new_config.check_out(args.out, args.force, data, args.checkpoint)
    backbone = find_backbone(args.backbone, args.head, args.checkpoint)
    start = backbone.start
    scale = args.scale and (max(args.scale), min(args.scale))
    pretrained = start.checkpoint is not None
    plan = make_plan(data, args.batch_size, scale, pretrained, args.iterations, args.epochs)
    files = new_config.write_config(
        args.out, data, args.head, backbone, plan, command, start.checkpoint, args.force
    )
    print(new_config.summary(data, backbone, plan))
    print(printable(f'the backbone starts from {start.text}'))
    following = f'python tools/train.py {shlex.quote(args.out)} --dry-run'
    print(printable(f'wrote {", ".join(files)}; next: {following}'))


if __name__ == '__main__':
    sys.exit(main())
