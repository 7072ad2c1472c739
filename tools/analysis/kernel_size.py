r"""Study of the kernel size: parameters, FLOPs, time and memory of networks against it.

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

import json
import sys
from pathlib import Path

from hybrid_mm.errors import UserError, shorten
from hybrid_mm.run import options
from hybrid_mm.run.console import print_table
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
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

    from hybrid_mm.analysis import kernel_size
    from hybrid_mm.benchmarks.report import environment

    check_output_folder(args.out)
    names = [(family, size) for family in args.families for size in dict.fromkeys(args.sizes)]
    accuracies = _accuracies(args.accuracy, names)
    device = options.torch_device(args.device)
    try:
        points = kernel_size.measure(
            names,
            tuple(args.shape),
            args.arch,
            args.batch,
            args.rounds,
            device,
            not args.inference_only,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    for point in points:
        point.accuracy = accuracies.get(point.name)
    content = kernel_size.as_json(
        points,
        environment=environment(device),
        shape=list(args.shape),
        arch=args.arch or 'tiny',
        batch=args.batch,
        rounds=args.rounds,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'kernel_size.json').write_text(json.dumps(content, indent=1))
    kernel_size.plot(points, args.out / 'kernel_size.png')
    _print(points, content)
    print(f'results in {args.out}')


def _accuracies(items: list[str], names: list[tuple[str, int]]) -> dict[str, float]:
    known = [f'{family}:{size}' for family, size in names]
    found = {}
    for item in items:
        name, _, path = item.partition('=')
        if name not in known:
            raise UserError(
                f'--accuracy {item}: expected FAMILY:K=FILE with one of {shorten(known, 12)}'
            )
        try:
            metrics = json.loads(Path(path).read_text())
            found[name] = float(next(v for k, v in metrics.items() if k.endswith('top1')))
        except (OSError, ValueError, AttributeError, StopIteration, TypeError) as error:
            raise UserError(
                f'--accuracy {item}: {path} holds no top-1 accuracy; expected the metrics that '
                'tools/test.py writes with --out FILE --out-item metrics'
            ) from error
    return found


def _print(points: list, content: dict) -> None:
    def text(value, unit=1.0, digits=1) -> str:
        return '-' if value is None else f'{value / unit:.{digits}f}'

    height, width = content['shape']
    title = f'{content["arch"]}, {height} x {width}, batches of {content["batch"]}; ms per image'
    head = [
        'network',
        'parameters',
        'GFLOPs',
        'forward ms',
        'MB',
        'with backward ms',
        'MB',
        'top-1',
    ]
    rows = [
        [
            point.name,
            f'{point.params:,}',
            f'{point.macs / 1e9:.3f}',
            text(point.inference_ms),
            text(point.inference_peak, 2**20),
            text(point.training_ms),
            text(point.training_peak, 2**20),
            text(point.accuracy, digits=2),
        ]
        for point in points
    ]
    print_table(title, head, rows)


if __name__ == '__main__':
    sys.exit(main())
