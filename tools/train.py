"""Train a detector, segmenter or classifier, whichever the config describes.

python tools/train.py configs/demo/... --work-dir work_dirs/try --amp
python tools/train.py configs/demo/... --dry-run      # one step: memory, time, estimate of the run
"""

import argparse
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of train.py."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    options.add_run_options(parser)
    parser.add_argument(
        '--no-amp', action='store_true', help='float32, even if the config enables mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size (auto_scale_lr of the config)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint, or from the newest intact one in the work dir',
    )
    parser.add_argument('--no-validate', action='store_true', help='train without validation')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='build everything, take one step on one batch and predict one validation batch; print '
        'parameters, FLOPs, memory, times and the estimated duration; save nothing',
    )
    options.add_tracking_options(parser)
    return parser.parse_args(argv)


@tool
def main(argv: list[str] | None = None) -> None:
    """Train into the work dir; with --dry-run print a table instead."""
    args = parse_args(argv)

    from hybrid_mm.commands.train import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
