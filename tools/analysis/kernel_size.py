r"""Parameters, FLOPs, time and memory of networks against their kernel size.

python tools/analysis/kernel_size.py --out DIR                         # LKA, LSKA, trivial forms
python tools/analysis/kernel_size.py --families lska pelk slak --sizes 7 23 51 --out DIR
python tools/analysis/kernel_size.py --rounds 0 --out DIR              # count only
python tools/analysis/kernel_size.py --accuracy lska:23=metrics.json --out DIR

FLOPs are multiply-adds for one image of --shape. All networks take turns in every round, so that
noise of the machine affects all of them alike; memory is the peak of allocations beyond parameters
and images. slak-decomposed is VAN with kernels of SLaK; slak-sparse-decomposed is counted without
the 40 % of their weights that are zero, and measured with them. --accuracy reads the metrics of a
checkpoint that tools/test.py wrote with --out-item metrics; else there are no accuracies.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
    """Print a table; write kernel_size.json and kernel_size.png to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument(
        '--out', required=True, type=Path, metavar='DIR', help='folder of the results'
    )
    parser.add_argument(
        '--families',
        nargs='+',
        default=['lka', 'lska', 'lka-trivial', 'lska-trivial'],
        metavar='NAME',
        help='lka, lska, lka-trivial, lska-trivial, slak-decomposed, slak-sparse-decomposed, pelk, '
        'slak (default: the first four)',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=int,
        default=[7, 11, 23, 35, 53, 65],
        metavar='K',
        help='kernel sizes (default: 7 11 23 35 53 65)',
    )
    parser.add_argument('--arch', help='variant, e.g. tiny, small, base (default: tiny)')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='size of the images (default: 224 224)',
    )
    parser.add_argument('--batch', type=int, default=1, help='images in a batch (default: 1)')
    parser.add_argument('--rounds', type=int, default=3, help='0 to count only (default: 3)')
    parser.add_argument('--inference-only', action='store_true', help='no backward passes')
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')
    parser.add_argument(
        '--accuracy', nargs='+', default=[], metavar='FAMILY:K=FILE', help='measured accuracy'
    )
    args = parser.parse_args(argv)
    if min(args.shape) < 32 or args.batch < 1 or args.rounds < 0:
        parser.error('--shape must be at least 32 32, --batch 1 and --rounds 0')

    from hybrid_mm.commands.kernel_size import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
