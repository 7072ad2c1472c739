"""Count what a training step asks of a GPU: launches, copies, bytes, arithmetic; without a GPU.

    python tools/dev/count_kernels.py --amp float16              all operators and networks
    python tools/dev/count_kernels.py NAT --amp float16 -w 20    those with NAT in their name, and
                                                                 where their kernels come from
    python tools/dev/count_kernels.py --amp float16 --page       docs/benchmarks/gpu_counts.md

Operators and backbones run forward and backward on fake CUDA tensors of 2 images of 800 x 1216. A
kernel is an operator of torch below autograd that is no view, or a launch of Triton. The status is
1 if one of them fails, mixes devices, copies to the host, lets it wait, or computes in float64.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int:
    """Count, print and write; the status of the program."""
    parser = options.parser(__doc__)
    parser.add_argument('names', nargs='*', help='parts of names (default: all)')
    parser.add_argument('--amp', choices=('float16', 'bfloat16'), help='autocast, else float32')
    parser.add_argument('--only', choices=('operators', 'networks'), help='one of both tables')
    parser.add_argument('-w', '--where', type=int, default=0, metavar='N', help='N places of most')
    parser.add_argument('--json', type=Path, help='write all numbers to this file')
    parser.add_argument('--page', action='store_true', help='write gpu_counts.md of the docs')
    args = parser.parse_args(argv)

    from hybrid_mm.commands.count_kernels import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
