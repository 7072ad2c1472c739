"""What ``tools/dev/count_kernels.py`` does once its arguments are read."""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from hybrid_mm.benchmarks.gpu_counts import tables
from hybrid_mm.benchmarks.gpu_counts.measure import Step, count_network, count_operator, reason
from hybrid_mm.benchmarks.gpu_counts.networks import NETWORKS
from hybrid_mm.benchmarks.gpu_counts.operators import OPERATORS

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'benchmarks' / 'gpu_counts.md'
HEAD = """\
# GPU counts of a training step

Counted, not measured: `python tools/dev/count_kernels.py --amp {amp} --page` runs operators and
backbones forward and backward on fake CUDA tensors, without a GPU, with 2 images of 800 x 1216
under autocast. A kernel is a torch operator below autograd that is not a view, or a Triton launch.
Launches are estimated at 5 µs each; the time on the device is the sum over kernels of the larger
of bytes / bandwidth and FLOPs / peak rate. FLOPs of Triton kernels are not known: an operator is
assumed to take at least the floor, and in networks such products are missing from FLOPs and times.
The floor is one fused kernel per pass that reads its inputs and writes its outputs once. *Host
copies* are those of one step; for operators, a second number counts copies in later calls, because
index tables stay on the device (*tables*). *fp32* counts FLOPs of float32 products, without Fourier
transforms.
"""


def run(args: argparse.Namespace) -> int:
    """Count, print and write; the status of the program."""
    torch.set_num_threads(1)
    columns = dict(operators=tables.OPERATOR_COLUMNS, networks=tables.NETWORK_COLUMNS)
    row_of = dict(operators=tables.operator_row, networks=tables.network_row)
    rows: dict[str, list[list[str]]] = dict(operators=[], networks=[])
    found, wrong = [], 0
    for kind, name, count in chosen(args):
        try:
            step = count()
        except Exception as error:
            print(f'{name}: failed, {reason(error)}', flush=True)
            wrong += 1
            continue
        rows[kind].append(row_of[kind](name, step))
        found.append(tables.numbers(name, step))
        print('; '.join(rows[kind][-1]), flush=True)
        for problem in tables.problems(step):
            print(f'    {problem}')
            wrong += 1
        if args.where:
            print_places(step, args.where)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    text = '\n\n'.join(tables.table(columns[kind], lines) for kind, lines in rows.items() if lines)
    print(f'\n{text}')
    if args.page:
        PAGE.write_text(f'{HEAD.format(amp=args.amp)}\n{text}\n')
    return 1 if wrong else 0


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Step]]]:
    """Kind, name and function that counts of what the user asks for."""
    amp = getattr(torch, args.amp) if args.amp else None
    cases = [('operators', op.name, partial(count_operator, op, amp)) for op in OPERATORS]
    for name, config in NETWORKS.items():
        count = partial(count_network, config, amp, places=args.where > 0)
        cases.append(('networks', name, count))
    for kind, name, count in cases:
        named = not args.names or any(part.lower() in name.lower() for part in args.names)
        if named and args.only in (None, kind):
            yield kind, name, count


def print_places(step: Step, most: int) -> None:
    """Print where most kernels come from, what is in float32, and what is copied."""
    total = step.total
    kernels = Counter(dict((total.places or total.operators).most_common(most)))
    lists = dict(kernels=kernels, islands=total.islands, wide=total.wide, copies=total.to_device)
    for title, places in lists.items():
        for place, number in places.most_common():
            print(f'    {number:>8} {title}: {place}')
