"""Plot losses and metrics of one or several runs.

python tools/analysis/plot_curves.py work_dirs/a work_dirs/b --keys loss coco/bbox_mAP --out a.png
"""

import sys

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run import options
from hybrid_mm.run.outputs import check_picture
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Draw a panel per scalar with a line per run; print the file and the scalars."""
    parser = options.parser(__doc__)
    parser.add_argument('runs', nargs='+', help='work dirs, or scalars.json files')
    parser.add_argument('--keys', nargs='+', help='names of scalars (default: all but times)')
    parser.add_argument('--labels', nargs='+', help='names of the runs (default: their paths)')
    parser.add_argument('--out', default='curves.png', help='picture to write')
    args = parser.parse_args(argv)
    labels = args.labels or args.runs
    if len(labels) != len(args.runs):
        parser.error(f'{len(args.runs)} runs need as many --labels, got {len(labels)}')

    from hybrid_mm.analysis.curves import plot_curves, read_scalars

    check_picture(args.out)
    try:
        runs = {label: read_scalars(run) for label, run in zip(labels, args.runs, strict=True)}
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    known = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    keys = args.keys or [k for k in known if k not in ('time', 'data_time', 'memory')]
    for key in keys:
        if key not in known:
            hint = nearest(key, known) or f'; there are {", ".join(known)}'
            raise UserError(f'--keys: no run has the scalar {key!r}{hint}')
    if not keys:
        raise UserError(f'{", ".join(args.runs)}: no scalars yet')
    plot_curves(runs, keys, args.out)
    print(f'{args.out}: {", ".join(keys)}')


if __name__ == '__main__':
    sys.exit(main())
