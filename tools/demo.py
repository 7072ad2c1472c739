"""Draw a data set, train a segmenter and a detector on it, evaluate them and draw the results.

The segmenter is trained from scratch, the detector starts from its backbone and neck. Everything
runs through tools/train.py and tools/test.py with the configs in configs/demo. Exit status 1 if a
metric stays below the value in the config (``expected``).
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int:
    """Run all steps; write pictures, curves and ``metrics.json`` to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'out', nargs='?', default='work_dirs/demo', help='output folder (default: %(default)s)'
    )
    parser.add_argument(
        '--data', default='data/demo', help='folder of the data set (default: %(default)s)'
    )
    parser.add_argument(
        '--reuse',
        action='store_true',
        help='keep trainings that an earlier run has finished and resume interrupted ones; '
        'by default both models are trained again',
    )
    args = parser.parse_args(argv)

    from hybrid_mm.commands.demo import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
