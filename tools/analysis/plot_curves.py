"""Plot losses and metrics of one or several runs.

python tools/analysis/plot_curves.py work_dirs/a work_dirs/b --keys loss coco/bbox_mAP --out a.png
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Draw a panel per scalar with a line per run; print the file and the scalars."""
    parser = options.parser(__doc__)
    parser.add_argument('runs', nargs='+', help='work dirs, or scalars.json files')
    parser.add_argument('--keys', nargs='+', help='names of scalars (default: all but times)')
    parser.add_argument('--labels', nargs='+', help='names of the runs (default: their paths)')
    parser.add_argument('--out', default='curves.png', help='picture to write')
    args = parser.parse_args(argv)
    args.labels = args.labels or args.runs
    if len(args.labels) != len(args.runs):
        parser.error(f'{len(args.runs)} runs need as many --labels, got {len(args.labels)}')
    twice = [label for label in args.labels if args.labels.count(label) > 1]
    if twice:
        parser.error(f'several runs are called {twice[0]}; name them apart with --labels')

    from hybrid_mm.commands.plot_curves import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
