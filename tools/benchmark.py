"""Compare operators, backbones and training with other ways to compute the same, as ratios.

python tools/benchmark.py ops                                # all operators, an hour or two; tables
python tools/benchmark.py backbones                          # against MMPretrain and timm
python tools/benchmark.py train                              # whole detectors and segmenters
python tools/benchmark.py local_attention                    # one operator, minutes
python tools/benchmark.py local_attention --out DIR          # and .csv, .json, .md, .png in DIR
python tools/benchmark.py local_attention --docs docs/benchmarks.md
python tools/benchmark.py local_attention --only 'window 7*' --rounds 5

Outputs and gradients of all candidates are compared before anything is timed; if one disagrees,
the run ends. Candidates of other packages (timm, NATTEN) are measured if they can be imported.

To add a subcommand, write a module with `cases(device, dtype, quick)`, a generator of
`hybrid_mm.benchmarks.core.Case` whose first candidate is the baseline, and with `PACKAGES`, the
packages whose versions are reported; and add its line to SUBCOMMANDS.
"""

import fnmatch
import importlib
import json
import sys
from pathlib import Path

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.outputs import check_output_file, check_output_folder
from hybrid_mm.run.tool import tool

SUBCOMMANDS = {
    'acmix': 'hybrid_mm.benchmarks.acmix',
    'backbones': 'hybrid_mm.benchmarks.backbones',
    'compile': 'hybrid_mm.benchmarks.compile',
    'elsa': 'hybrid_mm.benchmarks.elsa',
    'evolving_attention': 'hybrid_mm.benchmarks.evolving_attention',
    'lesa': 'hybrid_mm.benchmarks.lesa',
    'local_attention': 'hybrid_mm.benchmarks.local_attention',
    'neighborhood': 'hybrid_mm.benchmarks.neighborhood',
    'peripheral': 'hybrid_mm.benchmarks.peripheral',
    'qna': 'hybrid_mm.benchmarks.qna',
    'train': 'hybrid_mm.benchmarks.train',
}
OPS = [name for name in SUBCOMMANDS if name not in ('backbones', 'compile', 'train')]
DTYPES = ('float32', 'float64', 'bfloat16', 'float16')


@tool
def main(argv=None):
    """Measure the benchmarks; print a table, JSON, or a section of a document."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'benchmark', choices=['ops', *SUBCOMMANDS], help='what to measure; ops are all operators'
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
        help='per case; three rounds are made in any case (default: 20)',
    )
    parser.add_argument(
        '--only',
        metavar='PATTERN',
        action='append',
        help="cases whose name fits, as 'window 7*'; may be given several times",
    )
    parser.add_argument('--quick', action='store_true', help='tiny cases, to try the tool')
    parser.add_argument(
        '--memory-limit',
        type=float,
        metavar='GIB',
        help='on a CPU, let a candidate that needs more fail as out of memory',
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

    if args.out:
        check_output_folder(args.out)
    if args.docs:
        check_output_file(args.docs, '--docs')
        check_output_folder(args.docs.with_suffix(''), '--docs: the folder')

    import torch

    device = _device(args.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads or threads)
    found = False
    try:
        for name in OPS if args.benchmark == 'ops' else [args.benchmark]:
            found |= _measure(name, device, args)
    finally:
        torch.set_num_threads(threads)
    if not found:
        raise UserError(f'--only {" ".join(args.only)!r} fits no case')


def _measure(name: str, device, args) -> bool:
    """Measure and report one benchmark; return whether it has cases that ``--only`` matches."""
    import torch

    from hybrid_mm.benchmarks import core, report

    module = importlib.import_module(SUBCOMMANDS[name])
    surroundings = report.environment(device, module.PACKAGES)
    surroundings['dtype'] = args.dtype
    rows = []
    try:
        with core.memory_limit(args.memory_limit):
            for case in module.cases(device, getattr(torch, args.dtype), args.quick):
                if args.only and not any(fnmatch.fnmatch(case.name, p) for p in args.only):
                    continue
                print(f'{case.name} ...', file=sys.stderr, flush=True)
                rows += core.measure(case, args.seconds, args.rounds)
                _write(
                    name, args, surroundings, rows
                )  # after every case: the run may be interrupted
    except core.DisagreementError as error:
        raise UserError(str(error)) from error
    if rows:
        _show(name, args, surroundings, rows)
    return bool(rows)


def _device(name: str):
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name!r}: expected cpu or cuda[:N]') from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here')
    return device


def _write(name: str, args, surroundings, rows) -> None:
    from hybrid_mm.benchmarks import report

    text = report.markdown(name, surroundings, rows)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        figures = json.dumps(report.as_json(name, surroundings, rows), indent=1)
        (args.out / f'{name}.json').write_text(figures + '\n')
        (args.out / f'{name}.md').write_text(text)
        report.write_csv(rows, args.out / f'{name}.csv')
        report.plot(name, rows, args.out / f'{name}.png')
    if args.docs:
        folder = args.docs.with_suffix('')
        folder.mkdir(parents=True, exist_ok=True)
        report.write_csv(rows, folder / f'{name}.csv')
        report.plot(name, rows, folder / f'{name}.png')
        files = ', '.join(f'[{s}]({folder.name}/{name}.{s})' for s in ('csv', 'png'))
        report.put_into(args.docs, name, f'{text}\nThe same as {files}.\n')


def _show(name: str, args, surroundings, rows) -> None:
    from hybrid_mm.benchmarks import report

    if args.json:
        print(json.dumps(report.as_json(name, surroundings, rows), indent=1))
        return

    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print('; '.join(f'{k} {v}' for k, v in surroundings.items()))
    table = Table(box=box.SIMPLE)
    for i, head in enumerate(report.HEAD):
        table.add_column(head, justify='right' if i > 1 else 'left')
    case = None
    for row in rows:
        if row.case != case:
            table.add_section()
        values = report.cells(row)
        table.add_row('' if row.case == case else values[0], *values[1:])
        case = row.case
    console.print(table)
    for line in (*report.notes(rows), report.LEGEND):
        console.print(line)


if __name__ == '__main__':
    sys.exit(main())
