"""What ``tools/analysis/receptive_field.py`` does once its arguments are read."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybrid_mm.analysis import networks, receptive_field
from hybrid_mm.analysis.one_by_one import failed_rows, one_by_one
from hybrid_mm.data.images import find_images
from hybrid_mm.run.console import print_table, progress, wrote
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.outputs import check_output_folder, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Print a table; write maps, scores and figures to the output folder after every model."""
    check_output_folder(args.out)
    files = find_images(args.images, without=[args.out / 'receptive_fields.png'])
    labels, _ = networks.labels_and_files(args.models, args.checkpoints, args.labels)
    files_of_labels: list[str] = []
    for label in labels:
        name = re.sub(r'[^\w.-]+', '_', label)
        taken = f'{name}.npy' in files_of_labels
        files_of_labels.append(f'{name}_{len(files_of_labels)}.npy' if taken else f'{name}.npy')
    size = args.size[0], args.size[-1]
    maps: dict[str, np.ndarray] = {}
    content: dict[str, Any] = dict(
        kind='receptive_field', size=list(size), stage=args.stage, models=[], errors={}
    )

    def study(index: int) -> None:
        network = networks.network_of(args, index)
        print(f'{network.label}: {network.weights}')
        scores, figures = _study(network, files, size, args)
        args.out.mkdir(parents=True, exist_ok=True)
        np.save(args.out / files_of_labels[index], scores)
        maps[network.label] = scores
        content['models'].append(figures)

    def save(errors: dict[str, str]) -> None:
        content['errors'] = errors
        with replacing(args.out / 'receptive_field.json') as path:
            path.write_text(json.dumps(content, indent=1))
        if maps:
            receptive_field.draw(maps, args.out / 'receptive_fields.png', args.thresholds)

    status = one_by_one(labels, study, save)
    _print(content, args.thresholds)
    if maps:
        wrote(args.out)
    return status


def _study(
    network: networks.Network, files: list[Path], size: tuple[int, int], args: argparse.Namespace
) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores of a network, and its figures for the table."""
    height, width = network.accepted_size(*size)
    device = torch_device(args.device)
    total = min(args.count, len(files))
    with progress('images', total) as advance:

        def images() -> Iterator[torch.Tensor]:
            for number, file in enumerate(files):
                yield network.normalise(networks.stretched(file, height, width))[None].to(device)
                if number < total:  # further images replace those with NaN
                    advance()

        scores, used, skipped = receptive_field.mean_contribution(network, images(), args.count)
    found = receptive_field.rectangles(scores, args.thresholds)
    return scores, dict(
        label=network.label,
        weights=network.weights,
        size=[height, width],
        images=used,
        skipped=skipped,
        squares={str(t): value for t, value in found.items()},
    )


def _print(content: dict, thresholds: list[float]) -> None:
    head = ['model', *(f'{100 * t:g}%' for t in thresholds), 'images']
    rows = []
    for model in content['models']:
        cells = []
        for value in model['squares'].values():
            cells.append('-' if value is None else f'{value[0]}, {100 * value[1]:.1f}%')
        size = '' if model['size'] == content['size'] else ' at {} x {}'.format(*model['size'])
        rows.append([model['label'] + size, *cells, str(model['images'])])
    rows += failed_rows(content['errors'], len(head))
    height, width = content['size']
    title = f'side of the centred square in pixels and its share of {height} x {width}'
    print_table(title, head, rows)
