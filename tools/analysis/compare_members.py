"""Compare the variants of the attention study: parameters, FLOPs and time per image, in one run.

python tools/analysis/compare_members.py                                # all, 224 x 224
python tools/analysis/compare_members.py se cbam gc-r4 --shape 512 512 --out members.png
python tools/analysis/compare_members.py --json members.json --device cuda --batch 32

FLOPs are multiply-adds of convolutions, linear layers and matrix products for one image. All
variants take turns in every round, so that noise of the machine affects all of them alike; times
are medians, ratios medians of the quotients with the plain ResNet-50 within a round. Variants are
the files in configs/attention_modules/members, or those of another folder.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
    """Print a table of the variants; write a plot and JSON on request."""
    parser = options.parser(__doc__)
    parser.add_argument('members', nargs='*', help='names (default: all); resnet50 is added')
    parser.add_argument('--folder', type=Path, help='folder with one file per variant')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='size of the images (default: 224 224)',
    )
    parser.add_argument('--batch', type=int, default=2, help='images in a batch (default: 2)')
    parser.add_argument('--rounds', type=int, default=5, help='rounds of measurement (default: 5)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda[:N] (default: cpu)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='draw a plot into this file')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to this file')
    args = parser.parse_args(argv)

    from hybrid_mm.commands.compare_members import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
