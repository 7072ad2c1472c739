"""What ``tools/analysis/plot_curves.py`` does once its arguments are read."""

import argparse

from hybrid_mm.analysis.curves import TIMES, plot_curves, read_run
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_picture


def run(args: argparse.Namespace) -> None:
    """Draw a panel per scalar with a line per run; print the file and the scalars."""
    check_picture(args.out)
    try:
        runs = {label: read_run(run) for label, run in zip(args.labels, args.runs, strict=True)}
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    known = list(dict.fromkeys(name for log in runs.values() for name in log.curves))
    keys = args.keys or [k for k in known if k not in TIMES]
    for key in keys:
        if key not in known:
            hint = nearest(key, known) or f'; there are {", ".join(known)}'
            raise UserError(f'--keys: no run has the scalar {key!r}{hint}')
    if not keys:
        raise UserError(f'{", ".join(args.runs)}: no scalars yet')
    plot_curves(runs, keys, args.out)
    wrote(args.out, ', '.join(keys))
