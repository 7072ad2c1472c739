"""What ``tools/analysis/kernel_size.py`` does once its arguments are read."""

import argparse
import json
from pathlib import Path

from hybrid_mm.analysis import kernel_size
from hybrid_mm.benchmarks.report import environment
from hybrid_mm.errors import UserError, shorten
from hybrid_mm.run.console import print_table, wrote
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.outputs import check_output_folder, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Print a table; write kernel_size.json and kernel_size.png to the output folder."""
    check_output_folder(args.out)
    names = [(family, size) for family in args.families for size in dict.fromkeys(args.sizes)]
    accuracies = _accuracies(args.accuracy, names)
    device = torch_device(args.device)
    surroundings = environment(device)
    how = dict(shape=list(args.shape), arch=args.arch or 'tiny', batch=args.batch)

    def write(points: list[kernel_size.Point]) -> dict:
        for point in points:
            point.accuracy = accuracies.get(point.name)
        content = kernel_size.as_json(points, environment=surroundings, rounds=args.rounds, **how)
        with replacing(args.out / 'kernel_size.json') as path:
            path.write_text(json.dumps(content, indent=1))
        return content

    try:
        points = kernel_size.measure(
            names,
            tuple(args.shape),
            args.arch,
            args.batch,
            args.rounds,
            device,
            not args.inference_only,
            write,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    content = write(points)
    kernel_size.plot(points, args.out / 'kernel_size.png')
    _print(points, content)
    for point in points:
        if point.error:
            print(f'{point.name}: {point.error}')
    wrote(args.out)
    return int(any(point.error for point in points))


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
