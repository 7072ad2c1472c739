"""What ``tools/analysis/mixing_rates.py`` does once its arguments are read."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from hybrid_mm.analysis.acmix_rates import plot_rates, read_rates
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_picture
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> None:
    """Print a table of rates per source; draw them on request."""
    if args.out:
        check_picture(args.out)
    try:
        runs = {label: read_rates(s) for label, s in zip(args.labels, args.sources, strict=True)}
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
        wrote(args.out)
