"""What ``tools/benchmark.py`` does once its arguments are read."""

import argparse
import fnmatch
import importlib
import json
import sys

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from hybrid_mm.benchmarks import OPERATORS, TABLES, core, report
from hybrid_mm.benchmarks.modules import benchmark_module, short_name
from hybrid_mm.errors import UserError
from hybrid_mm.run.outputs import check_output_file, check_output_folder


def run(args: argparse.Namespace) -> None:
    """Measure the benchmarks; print a table, JSON, or a section of a document."""
    if args.out:
        check_output_folder(args.out)
    if args.docs:
        check_output_file(args.docs, '--docs')
        check_output_folder(args.docs.with_suffix(''), '--docs: the folder')

    device = _device(args.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads or threads)
    found = False
    try:
        if args.benchmark in TABLES:
            found = _tables(args.benchmark, device, args)
        else:
            for name in OPERATORS if args.benchmark == 'ops' else [args.benchmark]:
                found |= _measure(name, device, args)
    finally:
        torch.set_num_threads(threads)
    if not found:
        raise UserError(f'--only {" ".join(args.only)!r} fits no case')


def _measure(name: str, device, args) -> bool:
    """Measure and report one benchmark; return whether it has cases that ``--only`` matches."""
    module = benchmark_module(name)
    name = short_name(name)
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
        for place in filter(None, (args.out, args.docs)):
            print(f'wrote {place}', file=sys.stderr)
    return bool(rows)


def _tables(name: str, device: torch.device, args: argparse.Namespace) -> bool:
    """Measure and print a table of its own kind; return whether ``--only`` matches any case."""
    if device.type != 'cpu' or args.dtype != 'float32' or args.json or args.out:
        raise UserError(f'{name} measures float32 on a CPU, and takes neither --json nor --out')
    module = importlib.import_module(TABLES[name])

    def wanted(case: str) -> bool:
        if args.only and not any(fnmatch.fnmatch(case, p) for p in args.only):
            return False
        print(f'{case} ...', file=sys.stderr, flush=True)
        return True

    text = ''
    surroundings = report.environment(device, module.PACKAGES)
    title = f'### {name}, measured\n\n{"; ".join(f"{k} {v}" for k, v in surroundings.items())}.\n\n'
    try:
        with core.memory_limit(args.memory_limit):
            for lines in module.tables(wanted, args.rounds, args.seconds, args.quick):
                text = title + '\n'.join(lines) + '\n'
                if args.docs:  # after every case: the run may be interrupted
                    report.put_into(args.docs, name, text)
    except core.DisagreementError as error:
        raise UserError(str(error)) from error
    if not text:
        return False
    print(text)
    if args.docs:
        print(f'wrote {args.docs}', file=sys.stderr)
    return True


def _device(name: str):

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name!r}: expected cpu or cuda[:N]') from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here')
    return device


def _write(name: str, args, surroundings, rows) -> None:

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

    if args.json:
        print(json.dumps(report.as_json(name, surroundings, rows), indent=1))
        return

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
