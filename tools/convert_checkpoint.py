"""Convert an official checkpoint to the layout of this package.

python tools/convert_checkpoint.py van_b0.pth.tar van_b0.pth
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the converted weights, and print the layout that was found and what was written."""
    parser = options.parser(__doc__)
    parser.add_argument('input', help='official checkpoint of a known format, or hybrid_mm://NAME')
    parser.add_argument('output', help='file to write (.pth)')
    parser.add_argument(
        '--source',
        help='layout of the input, by default found by its keys; an unknown name lists all',
    )
    parser.add_argument(
        '--key', help='where the weights are in the input, such as model_ema; by default found'
    )
    args = parser.parse_args(argv)

    from hybrid_mm.commands.convert_checkpoint import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
