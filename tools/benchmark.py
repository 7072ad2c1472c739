"""Time operators, backbones and training against other implementations of the same thing.

python tools/benchmark.py ops                                # all operators, an hour or two; tables
python tools/benchmark.py backbones                          # against MMPretrain and timm
python tools/benchmark.py train                              # whole detectors and segmenters
python tools/benchmark.py floor --threads 1                  # shares of this machine's peak
python tools/benchmark.py predict --threads 1                # detectors beside DetInferencer
python tools/benchmark.py local_attention                    # one operator, minutes
python tools/benchmark.py local_attention --out DIR          # and .csv, .json, .md, .png in DIR
python tools/benchmark.py local_attention --docs docs/benchmarks.md
python tools/benchmark.py local_attention --only 'window 7*' --rounds 5

Outputs and gradients of all candidates are compared before anything is timed; if one disagrees,
the run stops. Candidates from other packages (timm, NATTEN) are measured if they are installed.

A benchmark is a module with `cases(device, dtype, quick)`, a generator of
`hybrid_mm.benchmarks.core.Case` whose first candidate is the baseline, and with `PACKAGES`, the
packages whose versions are reported. One of your own is named by its module or file; one of this
package has a line in SUBCOMMANDS of `hybrid_mm/benchmarks/__init__.py`.
"""

import argparse
import sys
from pathlib import Path

from hybrid_mm.benchmarks import SUBCOMMANDS, TABLES
from hybrid_mm.errors import nearest
from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

DTYPES = ('float32', 'float64', 'bfloat16', 'float16')


@tool
def main(argv: list[str] | None = None) -> None:
    """Measure the benchmarks; print a table, JSON, or a section of a document."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'benchmark',
        type=_benchmark,
        help='what to measure: ops (all operators), floor (shares of the peak of this machine), '
        'predict (detectors beside DetInferencer), '
        f'{", ".join(SUBCOMMANDS)}, or a module or file of your own, as my_net.benchmark',
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda[:N] (default: cpu)')
    parser.add_argument(
        '--dtype', default='float32', choices=DTYPES, help='data type (default: float32)'
    )
    parser.add_argument('--threads', type=int, help="torch's threads (default: torch's choice)")
    parser.add_argument('--rounds', type=int, default=20, help='at most (default: 20)')
    parser.add_argument(
        '--seconds',
        type=float,
        default=20.0,
        help='per case; at least three rounds are run (default: 20)',
    )
    parser.add_argument(
        '--only',
        metavar='PATTERN',
        action='append',
        help="cases whose name matches, e.g. 'window 7*'; can be given several times",
    )
    parser.add_argument('--quick', action='store_true', help='tiny cases, to try the tool')
    parser.add_argument(
        '--memory-limit',
        type=float,
        metavar='GIB',
        help='on a CPU, treat candidates that need more as out of memory',
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument('--out', metavar='DIR', type=Path, help='write files there')
    parser.add_argument(
        '--docs',
        metavar='FILE',
        type=Path,
        help='put the section into this file, and .csv and .png into the folder of its name',
    )
    args = parser.parse_args(argv)

    from hybrid_mm.commands.benchmark import run

    run(args)


def _benchmark(name: str) -> str:
    known = ('ops', *TABLES, *SUBCOMMANDS)
    if name not in known and '.' not in name:
        hint = nearest(name, known) or f'; known are {", ".join(known)}'
        raise argparse.ArgumentTypeError(
            f'there is no benchmark {name!r} (one of your own is PACKAGE.MODULE or FILE.py){hint}'
        )
    return name


if __name__ == '__main__':
    sys.exit(main())
