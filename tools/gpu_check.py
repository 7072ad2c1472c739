"""Does it work on my GPU, and how fast? Check everything, train a little, measure; 8 minutes.

python tools/gpu_check.py                                   # results in gpu_check/
python tools/gpu_check.py --minutes 3 --out DIR
python tools/gpu_check.py --list                            # names of all checks, in order
python tools/gpu_check.py --only operators networks/NAT     # checks with one of these in the name
python tools/gpu_check.py --dry --only operators            # toy sizes on a CPU, to try the tool

Every operator, layer and backbone is compared with its plain formulation in float32, float16 and
bfloat16, compiled and in CUDA graphs; four detectors and segmenters train for 20 steps; operators
are timed next to other implementations. The tool needs torch, Triton and this checkout; networks
need MMEngine, detectors mmcv, MMDetection and MMSegmentation; NATTEN is measured if installed.

gpu_check.json and gpu_check.md are written after every task. Crashes and hangs are recorded, and
the remaining tasks continue. The exit status is 1 if anything failed. Please attach both files to
bug reports.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int:
    """Do the tasks, and tell what came out."""
    parser = options.parser(__doc__)
    parser.add_argument(
        '--minutes', type=float, default=8.0, help='time for everything (default: 8)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('gpu_check'), metavar='FOLDER', help='default: gpu_check'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='NAME',
        help='tasks whose name contains one of these',
    )
    parser.add_argument('--list', action='store_true', help='print the names of the tasks only')
    parser.add_argument(
        '--dry', action='store_true', help='toy sizes on a CPU, kernels in the interpreter'
    )
    parser.add_argument(
        '--workers', type=int, help='processes that check things side by side (default: up to 6)'
    )
    parser.add_argument('--json', action='store_true', help='print JSON at the end, nothing else')
    args = parser.parse_args(argv)

    from hybrid_mm.commands.gpu_check import run

    return run(args, sys.argv[1:] if argv is None else argv)


if __name__ == '__main__':
    sys.exit(main())
