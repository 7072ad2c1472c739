"""Train every system of the study from scratch on one recipe, and write its tables and plots.

python tools/study.py run                                    # all that is missing
python tools/study.py run --only van lska 'acmix-*' --task segmentation
python tools/study.py run --seeds 3 --extremes 5             # of the best and the worst five
python tools/study.py table                                  # into docs/study.md

A run can be stopped at any time: the next one goes on with the interrupted trainings. Results are
kept in configs/study/results.json, one record for each training; those whose config has changed
since are run again. CamVid is read from CAMVID_ROOT, the shapes for detection are drawn.
docs/study.md says what is compared and how.
"""

import argparse
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

TASKS = ('segmentation', 'detection')


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number from 1 up expected, got {text!r}')
    return int(text)


@tool
def main(argv: list[str] | None = None) -> int:
    """Run, tabulate, or train one system."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        '--task', nargs='+', choices=TASKS, default=list(TASKS), help='which (default: both)'
    )
    shared.add_argument(
        '--work-dir',
        default='work_dirs/study',
        help='folder of the trainings (default: %(default)s)',
    )
    shared.add_argument(
        '--study', help='folder with members/ and recipes/ (default: configs/study)'
    )
    shared.add_argument('--results', help='file of the results (default: results.json there)')
    parser = options.parser(__doc__)
    commands = parser.add_subparsers(dest='what', required=True)
    run = commands.add_parser('run', parents=[shared], help='run the trainings without a result')
    run.add_argument(
        '--only', nargs='+', metavar='PATTERN', help="systems by name, e.g. van 'acmix-*'"
    )
    run.add_argument('--seeds', type=_count, default=1, help='seeds 0 to N - 1 (default: 1)')
    run.add_argument(
        '--extremes', type=_count, metavar='N', help='only the N best and the N worst with seed 0'
    )
    run.add_argument('--jobs', type=_count, default=2, help='trainings at a time (default: 2)')
    table = commands.add_parser('table', parents=[shared], help='write tables and plots')
    table.add_argument('--page', default='docs/study.md', help='the page (default: %(default)s)')
    train = commands.add_parser('train', parents=[shared], help='train one system here')
    train.add_argument('system', help='its name: that of a file of members/')
    train.add_argument('--seed', type=int, default=0, help='its seed (default: 0)')
    args = parser.parse_args(argv)
    args.argv = argv

    from hybrid_mm.commands.study import run as run_study

    return run_study(args)


if __name__ == '__main__':
    sys.exit(main())
