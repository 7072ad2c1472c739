"""What ``kernel_report.py`` does once its arguments are read: launches, programs, their table."""

import argparse
import collections
import contextlib
import json
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from kernel_cases import Case, cases
from offline import Figures, Program, compiled, program

from hybrid_mm.benchmarks.gpu_counts.engine import backward
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import Bodies, fake_cuda, on_fake_cuda
from hybrid_mm.errors import UserError
from hybrid_mm.ops import kernels

TYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}


@dataclass
class Row:
    """A program, which some launches share.

    Attributes:
        kernel: Name of the kernel.
        types: Of the maps.
        programs: For each GPU.
        cases: Layers that launch it.
        grid: Number of its programs in the first of them.
        figures: For each GPU.
    """

    kernel: str
    types: list[str]
    programs: dict[str, Program]
    cases: list[str]
    grid: int
    figures: dict[str, Figures] = field(default_factory=dict)

    def faults(self) -> Iterator[str]:
        """What is wrong with it, and where."""
        where = f'{self.kernel} ({", ".join(self.types)}; {self.cases[0]})'
        for gpu, figures in self.figures.items():
            for fault in figures.faults:
                yield f'{where} on {gpu}: {fault}'
            if 'tf32' in figures.products and 'float32' in self.types:
                yield f'{where} on {gpu}: products of float32 numbers rounded to TF32'


def launches(case: Case, dtype: torch.dtype) -> list[kernels.Launch]:
    """Launches of a training step of a layer: in half precision under autocast."""
    found: list[kernels.Launch] = []
    layer = case.layer().train()
    with fake_cuda(), Bodies(), kernels.recorded(found.append):
        on_fake_cuda(layer)
        x = torch.empty(case.shape, device='cuda', requires_grad=True)
        more = [
            torch.empty(y, device='cuda', requires_grad=True) if isinstance(y, torch.Size) else y
            for y in case.more
        ]
        with torch.autocast('cuda', dtype=dtype, enabled=dtype != torch.float32):
            backward(layer(x, *more))
    return found


def rows(chosen: Iterable[Case], types: Sequence[str], gpus: Sequence[str]) -> list[Row]:
    """Distinct programs that layers launch, not compiled yet."""
    found: dict[str, Row] = {}
    for case in chosen:
        for name in types:
            for launch in launches(case, TYPES[name]):
                programs = {gpu: program(launch, gpu) for gpu in gpus}
                key = programs[gpus[0]].key
                if key not in found:
                    kernel = launch.kernel.fn.__name__.strip('_')
                    found[key] = Row(kernel, [], programs, [], _count(launch))
                for names, new in ((found[key].cases, case.name), (found[key].types, name)):
                    if new not in names:
                        names.append(new)
    return sorted(found.values(), key=lambda row: row.kernel)


def _count(launch: kernels.Launch) -> int:
    grid = launch.grid(launch.arguments) if callable(launch.grid) else launch.grid
    return int(torch.Size(grid).numel())


_work: list[tuple[Row, str]] = []  # handed to processes by forking: kernels cannot be pickled


def _figures(index: int) -> Figures:
    row, gpu = _work[index]
    return compiled(row.programs[gpu])


def compile_all(found: Sequence[Row], jobs: int) -> None:
    """Fill in the figures of all rows."""
    _work[:] = [(row, gpu) for row in found for gpu in row.programs]
    with contextlib.ExitStack() as stack:
        run = map
        if jobs > 1:
            run = stack.enter_context(multiprocessing.get_context('fork').Pool(jobs)).imap
        for (row, gpu), figures in zip(_work, run(_figures, range(len(_work))), strict=True):
            row.figures[gpu] = figures


def lines(found: Sequence[Row]) -> list[list[str]]:
    """Cells of the table; programs of a kernel that need the same share a line."""
    merged: dict[tuple, list[Row]] = collections.defaultdict(list)
    for row in found:
        needs = (f._replace(products=()) for f in row.figures.values())
        merged[row.kernel, tuple(needs)].append(row)
    table = []
    for (kernel, _), same in merged.items():
        names = list(dict.fromkeys(name for row in same for name in row.cases))
        layers = names[0] if len(names) == 1 else f'{names[0]} (+{len(names) - 1})'
        types = ', '.join(name for name in TYPES if any(name in row.types for row in same))
        needs = same[0].figures.values()
        products = {p for row in same for f in row.figures.values() for p in f.products}
        warps = ', '.join(sorted({str(figures.warps) for figures in needs}))
        cells = [
            kernel,
            layers,
            types,
            str(same[0].grid),
            ', '.join(sorted(products)) or '-',
            warps,
        ]
        for f in needs:
            cells += [str(f.registers), str(f.spills), f'{f.shared / 1024:.1f}', str(f.resident)]
        table.append(cells)
    return table


def header(gpus: Sequence[str]) -> list[str]:
    """Titles of the columns."""
    titles = ['kernel', 'layer', 'type', 'programs', 'tensor cores', 'warps']
    columns = ('registers', 'spilled', 'shared', 'resident')
    return titles + [f'{gpu} {name}' for gpu in gpus for name in columns]


def markdown(found: Sequence[Row], gpus: Sequence[str]) -> str:
    """The page of the documentation."""
    faults = [fault for row in found for fault in row.faults()]
    table = [header(gpus), ['---'] * 6 + ['--:'] * (4 * len(gpus)), *lines(found)]
    text = ['| ' + ' | '.join(cells) + ' |' for cells in table]
    verdict = '\n'.join(f'- {fault}' for fault in faults) or 'None of them has a fault.'
    return PAGE.format(count=len(found), faults=verdict, table='\n'.join(text))


PAGE = """# Kernels on GPUs, compiled without one

Written by `python tools/dev/kernel_report.py --markdown docs/benchmarks/kernels.md`. The layers of
the papers run forward and backward on images of 2 x 800 x 1216 as fake CUDA tensors. Each of the
{count} distinct programs that they launch is compiled by Triton for compute capability 8.0 (A100)
and 9.0 (H100, H200), and `ptxas` reports the resources that it needs.

- **layer**: the first layer that launches the program (+ the number of others), and the stride of
  its map; `to` marks layers of stride 2.
- **programs**: number of instances for this layer; a GPU has 108 (A100) or 132 (H100)
  multiprocessors.
- **tensor cores**: types of the products that run on tensor cores.
- **warps**: per program. **registers**: per thread, 255 at most.
- **spilled**: bytes per thread that do not fit into registers and are stored in memory.
- **shared**: KB of shared memory per program; 163 (A100), 227 (H100) and 99 (consumer GPUs) are
  available.
- **resident**: warps on a multiprocessor at a time, out of 64.

Faults are spills, too much shared memory, half-precision products without tensor cores, and
float32 products rounded to TF32 (tf32x3 uses three products instead of one and is as accurate as
float32).

{faults}

{table}
"""


def run(args: argparse.Namespace) -> int:
    """Compile and print; exit status 1 if a kernel has a fault.

    Raises:
        UserError: No layer has such a name.
    """
    warnings.simplefilter('ignore')
    chosen = [c for c in cases() if not args.names or any(n in c.name for n in args.names)]
    if not chosen:
        raise UserError(f'no layer has {" or ".join(args.names)} in its name')
    found = [r for r in rows(chosen, args.types, args.gpus) if args.kernel in r.kernel]
    compile_all(found, args.jobs)
    table = [header(args.gpus), *lines(found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print('  '.join(map(str.ljust, cells, widths)).rstrip())
    faults = [fault for row in found for fault in row.faults()]
    print(f'{len(found)} programs, {len(faults)} faults', *faults, sep='\n  ')
    if args.markdown:
        args.markdown.write_text(markdown(found, args.gpus))
    if args.json:
        args.json.write_text(json.dumps([_plain(row) for row in found], indent=1))
    return int(bool(faults))


def _plain(row: Row) -> dict:
    figures = {gpu: f._asdict() for gpu, f in row.figures.items()}
    return dict(kernel=row.kernel, types=row.types, layers=row.cases, grid=row.grid, gpus=figures)
