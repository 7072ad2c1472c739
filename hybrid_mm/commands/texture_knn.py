"""What ``tools/analysis/texture_knn.py`` does once its arguments are read."""

import argparse
import json

import numpy as np

from hybrid_mm.analysis import neighbours, networks
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import print_table
from hybrid_mm.run.outputs import check_output_folder


def run(args: argparse.Namespace) -> None:
    """Print a table of accuracies; write texture_knn.json to the output folder."""
    check_output_folder(args.out)
    parts = (args.reference, args.queries)
    splits = {n: [neighbours.read_split(args.root, p, n) for p in parts] for n in args.splits}
    files = list(dict.fromkeys(f for split in splits.values() for part in split for f in part[0]))
    place = {file: i for i, file in enumerate(files)}
    figures = []
    for network, found in networks.networks_with_features(args, files):
        top1 = {}
        for number, split in splits.items():
            sides = [
                (found[[place[f] for f in names]], np.array(labels)) for names, labels in split
            ]
            try:
                top1[number] = neighbours.accuracy(*sides[0], *sides[1], args.k, args.metric)
            except ValueError as error:
                raise UserError(f'--k: {error}') from error
        mean = sum(top1.values()) / len(top1)
        figures.append(dict(label=network.label, weights=network.weights, mean=mean, splits=top1))
    classes = len({label for split in splits.values() for part in split for label in part[1]})
    content = dict(
        kind='texture_knn',
        k=args.k,
        metric=args.metric,
        stage=args.stage,
        images=len(files),
        classes=classes,
        models=figures,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'texture_knn.json').write_text(json.dumps(content, indent=1))
    rows = [
        [m['label'], *(f'{v:.2f}' for v in m['splits'].values()), f'{m["mean"]:.2f}']
        for m in figures
    ]
    title = f'top-1 accuracy in per cent, k = {args.k}, {args.metric}, {classes} classes'
    print_table(title, ['model', *(f'split {n}' for n in splits), 'mean'], rows)
    print(f'results in {args.out}')
