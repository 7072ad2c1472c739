"""What ``tools/analysis/acmix_cost.py`` does once its arguments are read."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from hybrid_mm.analysis.acmix_cost import first_stage_share, layer_cost, network_cost
from hybrid_mm.errors import UserError


def run(args: argparse.Namespace) -> None:
    """Print the table of multiply-adds and weights per part."""
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
