"""What the Triton kernels need on GPUs, found by compiling them on a machine without one.

    python tools/dev/kernel_report.py                     all layers of tools/dev/kernel_cases.py
    python tools/dev/kernel_report.py NAT 'Swin-T'        those with such a part in their name
    python tools/dev/kernel_report.py --markdown docs/benchmarks/kernels.md

The layers run forward and backward on fake CUDA tensors; every launch that they record is compiled
for compute capability 8.0 and 9.0. Exit status 1 if a kernel spills registers, needs more shared
memory than there is, multiplies matrices in half precision without tensor cores, rounds float32
products to TF32, or does not compile. A second run takes programs from Triton's cache.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

TYPES = ('float16', 'bfloat16', 'float32')
GPUS = ('sm_80', 'sm_90')


@tool
def main(argv: list[str] | None = None) -> int:
    """Compile and print; exit status 1 if a kernel has a fault."""
    parser = options.parser(__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='parts of names of layers')
    parser.add_argument(
        '--types', nargs='+', choices=TYPES, default=TYPES, help='of the maps (default: all)'
    )
    parser.add_argument(
        '--gpus', nargs='+', choices=GPUS, default=GPUS, help='to compile for (default: all)'
    )
    parser.add_argument('--kernel', default='', help='part of the name of the kernels')
    parser.add_argument('--jobs', type=int, default=1, help='processes that compile')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write a page')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    args = parser.parse_args(argv)

    from compiled_kernels import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
