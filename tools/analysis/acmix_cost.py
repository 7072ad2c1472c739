"""Print the cost of projection and aggregation in convolution, attention and ACmix.

python tools/analysis/acmix_cost.py                       # the 3x3 layers of ResNet-50 at 224 x 224
python tools/analysis/acmix_cost.py --layer 64 200 304    # one layer: channels, rows, columns
"""

import sys

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Print the table of multiply-adds and weights per part."""
    parser = options.parser(__doc__)
    parser.add_argument('--layer', nargs=3, type=int, metavar=('C', 'H', 'W'), help='one layer')
    parser.add_argument(
        '--kernel-conv', type=int, default=3, help='of the convolution (default: 3)'
    )
    parser.add_argument('--kernel-att', type=int, default=7, help='window (default: 7)')
    parser.add_argument('--heads', type=int, default=4, help='number of heads (default: 4)')
    args = parser.parse_args(argv)

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hybrid_mm.analysis.acmix_cost import first_stage_share, layer_cost, network_cost

    settings = dict(kernel_conv=args.kernel_conv, kernel_att=args.kernel_att, heads=args.heads)
    try:
        costs = layer_cost(*args.layer, **settings) if args.layer else network_cost(**settings)
    except ValueError as error:
        raise UserError(str(error)) from error
    table = Table('operator', 'stage', 'part', box=box.SIMPLE)
    for head in ('multiply-adds', 'weights', 'stage I'):
        table.add_column(head, justify='right')
    before = None
    for cost in costs:
        new = cost.operator != before
        share = f'{first_stage_share(costs, cost.operator):.1%}' if new else ''
        if new and before:
            table.add_section()
        table.add_row(
            cost.operator if new else '',
            cost.stage,
            cost.part,
            f'{cost.macs / 1e9:.4f} G',
            f'{cost.params / 1e6:.4f} M',
            share,
        )
        before = cost.operator
    Console(width=100).print(table)


if __name__ == '__main__':
    sys.exit(main())
