"""Print the cost of projection and aggregation in convolution, attention and ACmix.

python tools/analysis/acmix_cost.py                       # the 3x3 layers of ResNet-50 at 224 x 224
python tools/analysis/acmix_cost.py --layer 64 200 304    # one layer: channels, rows, columns
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Print the table of multiply-adds and weights per part."""
    parser = options.parser(__doc__)
    parser.add_argument('--layer', nargs=3, type=int, metavar=('C', 'H', 'W'), help='one layer')
    parser.add_argument(
        '--kernel-conv', type=int, default=3, help='of the convolution (default: 3)'
    )
    parser.add_argument('--kernel-att', type=int, default=7, help='window (default: 7)')
    parser.add_argument('--heads', type=int, default=4, help='number of heads (default: 4)')
    args = parser.parse_args(argv)

    from hybrid_mm.commands.acmix_cost import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
