"""Plot the rates of attention and convolution in the layers of ACmix.

python tools/analysis/mixing_rates.py checkpoints/swin-t-acmix_in1k.pth --out rates.png
python tools/analysis/mixing_rates.py work_dirs/seed0 work_dirs/seed1 --out rates.png

Work dirs are those of runs with `custom_hooks=[dict(type='hybrid_mm.MixingRatesHook')]`.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Print a table of rates per source; draw them on request."""
    parser = options.parser(__doc__)
    parser.add_argument('sources', nargs='+', help='checkpoints, work dirs, scalars.json files')
    parser.add_argument('--labels', nargs='+', help='their names (default: their paths)')
    parser.add_argument('--out', help='picture to write')
    args = parser.parse_args(argv)
    args.labels = args.labels or args.sources
    if len(args.labels) != len(args.sources):
        parser.error(f'{len(args.sources)} sources need as many --labels, got {len(args.labels)}')

    from hybrid_mm.commands.mixing_rates import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
