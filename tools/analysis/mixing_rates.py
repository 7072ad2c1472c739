"""Show the rates of attention and of convolution in the layers of ACmix.

python tools/analysis/mixing_rates.py checkpoints/swin-t-acmix_in1k.pth --out rates.png
python tools/analysis/mixing_rates.py work_dirs/seed0 work_dirs/seed1 --out rates.png

Work dirs are those of runs with `custom_hooks=[dict(type='hybrid_mm.MixingRatesHook')]`.
"""

import sys

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.outputs import check_picture
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Print a table of rates per source; draw them on request."""
    parser = options.parser(__doc__)
    parser.add_argument('sources', nargs='+', help='checkpoints, work dirs, scalars.json files')
    parser.add_argument('--labels', nargs='+', help='their names (default: their paths)')
    parser.add_argument('--out', help='picture to write')
    args = parser.parse_args(argv)
    labels = args.labels or args.sources
    if len(labels) != len(args.sources):
        parser.error(f'{len(args.sources)} sources need as many --labels, got {len(labels)}')

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hybrid_mm.analysis.acmix_rates import plot_rates, read_rates

    if args.out:
        check_picture(args.out)
    try:
        runs = {label: read_rates(s) for label, s in zip(labels, args.sources, strict=True)}
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    for label, rates in runs.items():
        table = Table('layer', title=label, box=box.SIMPLE)
        for head in ('attention', 'convolution', 'log |ratio|'):
            table.add_column(head, justify='right')
        for r in rates:
            table.add_row(
                r.layer, f'{r.attention:.4f}', f'{r.convolution:.4f}', f'{r.log_ratio:+.3f}'
            )
        console.print(table)
    if args.out:
        plot_rates(runs, args.out)
        print(args.out)


if __name__ == '__main__':
    sys.exit(main())
