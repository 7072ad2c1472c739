r"""Effective receptive field of backbones: which pixels the centre of a map depends on.

python tools/analysis/receptive_field.py CONFIG --checkpoints FILE --images photos/ --out DIR
python tools/analysis/receptive_field.py "dict(type='hybrid_mm.VAN')" CONFIG \
    --labels LKA other --images photos/ --size 1024 --count 50 --out DIR

Models are configs or dicts of a backbone. For each, the table has the side and the area of the
smallest centred squares that contain 20, 30, 50 and 99 per cent of the (log-scaled) contribution.
Written to DIR are the maps side by side (receptive_fields.png), the scores (LABEL.npy) and the
figures (receptive_field.json). Without --checkpoints weights are random: the result says nothing
about a trained network. Images are resized to --size, ignoring their aspect ratio.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
    """Print a table; write maps, scores and figures to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument('models', nargs='+', help="config, or dict(type='...', ...) of a backbone")
    parser.add_argument('--images', required=True, help='image, or folder (searched recursively)')
    parser.add_argument(
        '--out', required=True, type=Path, metavar='DIR', help='folder of the results'
    )
    options.add_network_options(parser)
    parser.add_argument(
        '--size',
        nargs='+',
        type=int,
        default=[1024],
        metavar='N',
        help='side, or height and width, of the images (default: 1024)',
    )
    parser.add_argument('--count', type=int, default=50, help='images that count (default: 50)')
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=[0.2, 0.3, 0.5, 0.99],
        metavar='T',
        help='shares of the contribution (default: 0.2 0.3 0.5 0.99)',
    )
    args = parser.parse_args(argv)
    if len(args.size) > 2 or min(args.size) < 32:
        parser.error(f'--size: expected one or two numbers of at least 32, got {args.size}')
    if args.count < 1 or not all(0 < t < 1 for t in args.thresholds):
        parser.error('--count must be at least 1 and --thresholds lie between 0 and 1')

    from hybrid_mm.commands.receptive_field import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
