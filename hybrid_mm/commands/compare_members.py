"""What ``tools/analysis/compare_members.py`` does once its arguments are read."""

import argparse
import json

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from hybrid_mm.analysis import variants
from hybrid_mm.benchmarks.report import environment
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, check_picture, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Print a table of the variants; write a plot and JSON on request."""
    if args.out:
        check_picture(args.out)
    if args.json:
        check_output_file(args.json, '--json')

    folder = args.folder or installed_configs() / 'attention_modules' / 'members'
    try:
        paths = variants.find(folder)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    baseline = next(iter(paths))
    for name in args.members:
        if name not in paths:
            hint = nearest(name, paths) or f'; there are {", ".join(paths)}'
            raise UserError(f'no variant {name!r} in {folder}{hint}')
    if args.members:
        paths = {name: path for name, path in paths.items() if name in {baseline, *args.members}}
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'--device {args.device}: torch sees no GPU; use --device cpu')
    surroundings = environment(torch.device(args.device))

    def write(found: list[variants.Variant]) -> None:
        if not args.json:
            return
        how = dict(shape=list(args.shape), batch=args.batch, rounds=args.rounds)
        figures = variants.as_json(found, environment=surroundings, **how)
        with replacing(args.json) as path:
            path.write_text(json.dumps(figures, indent=1))

    try:
        found = variants.compare(
            paths, tuple(args.shape), args.batch, args.rounds, args.device, write
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    _print(found, args)
    if args.out and not all(variant.error for variant in found):
        variants.plot(found, args.out)
        wrote(args.out)
    return int(any(variant.error for variant in found))


def _print(found: list, args) -> None:
    height, width = args.shape
    title = f'{height} x {width}, batches of {args.batch}, {args.device}; ms per image'
    table = Table(box=box.SIMPLE, title=title, title_justify='left')
    table.add_column('variant')
    for column in ('parameters', 'GFLOPs', 'forward', 'x', 'with backward', 'x'):
        table.add_column(column, justify='right')
    for m in found:
        if m.error:
            table.add_row(f'{m.name}: {m.error}', *['-'] * 6)
            continue
        table.add_row(
            m.name,
            f'{m.params:,}',
            f'{m.macs / 1e9:.3f}',
            f'{m.inference_ms:.1f}',
            f'{m.inference_ratio:.2f}',
            f'{m.training_ms:.1f}',
            f'{m.training_ratio:.2f}',
        )
    Console().print(table)
