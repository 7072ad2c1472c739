"""What ``tools/analysis/shape_texture.py`` does once its arguments are read."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_mm.analysis import conflict_pairs, networks
from hybrid_mm.analysis.dimensions import dimensions
from hybrid_mm.analysis.one_by_one import failed_rows, one_by_one
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import print_table, progress, wrote
from hybrid_mm.run.outputs import check_output_folder, plain_label, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Run `measure` or `generate`."""
    check_output_folder(args.out, 'out' if args.command == 'generate' else '--out')
    if args.command == 'generate':
        _generate(args)
        return 0
    return _measure(args)


def _generate(args) -> None:
    for source in (args.shapes, args.textures):
        if args.out.resolve().is_relative_to(Path(source).resolve()):
            raise UserError(f'{args.out} is inside of {source}, which is read; name another')
    shapes = conflict_pairs.read_sources(args.shapes, args.limit)
    textures = conflict_pairs.read_sources(args.textures, args.limit)
    total = sum(s[0] != t[0] for s in shapes for t in textures)
    with progress('mixing', total) as advance:
        count = conflict_pairs.make_set(
            shapes, textures, args.out, args.size, args.weight, args.seed, advance
        )
    wrote(args.out, f'{count} images')


def _measure(args) -> int:
    images, without = conflict_pairs.read_set(args.pairs)
    if without:
        print(f'{without} images without a conflict are skipped')
    choices = [conflict_pairs.make_pairs(images, seed) for seed in range(args.seeds)]
    labels, _ = networks.labels_and_files(args.models, args.checkpoints, args.labels)
    content: dict[str, Any] = dict(
        kind='shape_texture',
        images=len(images),
        pairs={name: len(found) for name, found in choices[0].items()},
        normalise=args.normalise,
        seeds=args.seeds,
        stage=args.stage,
        size=args.size,
        models=[],
        errors={},
    )

    def study(index: int) -> None:
        files = [image.path for image in images]
        network, found = networks.network_with_features(args, index, files)
        results = []
        for pairs in choices:
            factors = [list(zip(*pairs[name], strict=True)) for name in conflict_pairs.FACTORS]
            halves = [(found[list(a)], found[list(b)]) for a, b in factors]
            results.append(dimensions(halves, args.normalise))
        content['models'].append(_summary(network, found.shape[1], results))

    def save(errors: dict[str, str]) -> None:
        content['errors'] = errors
        with replacing(args.out / 'shape_texture.json') as path:
            path.write_text(json.dumps(content, indent=1))
        if content['models']:
            _plot(content['models'], args.out / 'shape_texture.png')

    status = one_by_one(labels, study, save)
    _print(content)
    if content['models']:
        wrote(args.out)
    return status


def _summary(network, neurons: int, results: list) -> dict:

    names = ('shape', 'texture', 'residual')
    figures = dict(label=network.label, weights=network.weights, neurons=neurons)
    for key in ('scores', 'dims', 'percent'):
        values = np.array([getattr(result, key) for result in results], float)
        figures[key] = dict(zip(names, values.mean(0).tolist(), strict=True))
        if key == 'percent':
            figures['spread'] = dict(zip(names, np.ptp(values, axis=0).tolist(), strict=True))
    return figures


def _print(content: dict) -> None:
    head = ['model', 'neurons', *(f'{n} %' for n in ('shape', 'texture', 'residual')), 'range']
    rows = [
        [
            model['label'],
            str(model['neurons']),
            *(f'{value:.1f}' for value in model['percent'].values()),
            f'{max(model["spread"].values()):.1f}',
        ]
        for model in content['models']
    ]
    title = f'{content["pairs"]} pairs of {content["images"]} images, {content["seeds"]} choices'
    print_table(title, head, [*rows, *failed_rows(content['errors'], len(head))])


def _plot(figures: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.4 * len(figures)), layout='constrained')
    ax = figure.subplots()
    labels = [plain_label(model['label']) for model in figures]
    left = [0.0] * len(figures)
    for name in ('shape', 'texture', 'residual'):
        values = [model['percent'][name] for model in figures]
        bars = ax.barh(labels, values, left=left, label=name)
        ax.bar_label(bars, fmt='%.1f', label_type='center', fontsize=8)
        left = [a + b for a, b in zip(left, values, strict=True)]
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel='dimensions in per cent')
    ax.legend(ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=120)
