"""Compare the variants of the attention study: parameters, FLOPs and time per image, in one run.

python tools/analysis/compare_members.py                                # all, 224 x 224
python tools/analysis/compare_members.py se cbam gc-r4 --shape 512 512 --out members.png
python tools/analysis/compare_members.py --json members.json --device cuda --batch 32

FLOPs are multiply-adds of convolutions, linear layers and matrix products for one image. All
variants take turns in every round, so that noise of the machine affects all of them alike; times
are medians, ratios medians of the quotients with the plain ResNet-50 within a round. Variants are
the files in configs/attention_modules/members, or those of another folder.
"""

import json
import sys
from pathlib import Path

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run import options
from hybrid_mm.run.config import installed_configs
from hybrid_mm.run.outputs import check_output_file, check_picture, replacing
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Print a table of the variants; write a plot and JSON on request."""
    parser = options.parser(__doc__)
    parser.add_argument('members', nargs='*', help='names (default: all); resnet50 is added')
    parser.add_argument('--folder', type=Path, help='folder with one file per variant')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='size of the images (default: 224 224)',
    )
    parser.add_argument('--batch', type=int, default=2, help='images in a batch (default: 2)')
    parser.add_argument('--rounds', type=int, default=5, help='rounds of measurement (default: 5)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda[:N] (default: cpu)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='draw a plot into this file')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to this file')
    args = parser.parse_args(argv)

    if args.out:
        check_picture(args.out)
    if args.json:
        check_output_file(args.json, '--json')

    import torch

    from hybrid_mm.analysis import variants
    from hybrid_mm.benchmarks.report import environment

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
    try:
        found = variants.compare(paths, tuple(args.shape), args.batch, args.rounds, args.device)
    except ValueError as error:
        raise UserError(str(error)) from error
    _print(found, args)
    if args.json:
        surroundings = environment(torch.device(args.device))
        figures = variants.as_json(
            found,
            environment=surroundings,
            shape=list(args.shape),
            batch=args.batch,
            rounds=args.rounds,
        )
        with replacing(args.json) as path:
            path.write_text(json.dumps(figures, indent=1))
    if args.out:
        variants.plot(found, args.out)
        print(args.out)


def _print(found: list, args) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    height, width = args.shape
    title = f'{height} x {width}, batches of {args.batch}, {args.device}; ms per image'
    table = Table(box=box.SIMPLE, title=title, title_justify='left')
    table.add_column('variant')
    for column in ('parameters', 'GFLOPs', 'forward', 'x', 'with backward', 'x'):
        table.add_column(column, justify='right')
    for m in found:
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


if __name__ == '__main__':
    sys.exit(main())
