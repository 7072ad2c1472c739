"""What ``tools/analysis/receptive_field.py`` does once its arguments are read."""

import argparse
import json
import re

import numpy as np
import torch

from hybrid_mm.analysis import networks, receptive_field
from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import print_table, progress
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.outputs import check_output_folder


def run(args: argparse.Namespace) -> None:
    """Print a table; write maps, scores and figures to the output folder."""
    check_output_folder(args.out)
    files = find_images(args.images, without=[args.out / 'receptive_fields.png'])
    device = torch_device(args.device)
    height, width = args.size[0], args.size[-1]
    maps, figures = {}, []
    for network in networks.load_networks(args.models, args.checkpoints, args.labels, args.stage):
        network.module.to(device)
        print(f'{network.label}: {network.weights}')
        total = min(args.count, len(files))

        def images(advance, network=network, total=total):
            for number, file in enumerate(files):
                yield network.normalise(networks.stretched(file, height, width))[None].to(device)
                if number < total:  # further images replace those with NaN
                    advance()

        try:
            with progress('images', total) as advance:
                scores, used, skipped = receptive_field.mean_contribution(
                    network, images(advance), args.count
                )
            found = receptive_field.rectangles(scores, args.thresholds)
        except (ValueError, torch.OutOfMemoryError) as error:
            raise UserError(f'{network.label}: {error}') from error
        maps[network.label] = scores
        args.out.mkdir(parents=True, exist_ok=True)
        np.save(args.out / (re.sub(r'[^\w.-]+', '_', network.label) + '.npy'), scores)
        figures.append(
            dict(
                label=network.label,
                weights=network.weights,
                images=used,
                skipped=skipped,
                squares={str(t): value for t, value in found.items()},
            )
        )
    content = dict(kind='receptive_field', size=[height, width], stage=args.stage, models=figures)
    (args.out / 'receptive_field.json').write_text(json.dumps(content, indent=1))
    receptive_field.draw(maps, args.out / 'receptive_fields.png', args.thresholds)
    _print(content, args.thresholds)
    print(f'results in {args.out}')


def _print(content: dict, thresholds: list[float]) -> None:
    head = ['model', *(f'{100 * t:g}%' for t in thresholds), 'images']
    rows = []
    for model in content['models']:
        cells = []
        for value in model['squares'].values():
            cells.append('-' if value is None else f'{value[0]}, {100 * value[1]:.1f}%')
        rows.append([model['label'], *cells, str(model['images'])])
    height, width = content['size']
    title = f'side of the centred square in pixels and its share of {height} x {width}'
    print_table(title, head, rows)
