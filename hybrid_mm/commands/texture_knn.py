"""What ``tools/analysis/texture_knn.py`` does once its arguments are read."""

import argparse
import json
from typing import Any

import numpy as np

from hybrid_mm.analysis import neighbours, networks
from hybrid_mm.analysis.one_by_one import failed_rows, one_by_one
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import print_table, wrote
from hybrid_mm.run.outputs import check_output_folder, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Print a table of accuracies; write texture_knn.json after every model."""
    check_output_folder(args.out)
    parts = (args.reference, args.queries)
    splits = {n: [neighbours.read_split(args.root, p, n) for p in parts] for n in args.splits}
    files = list(dict.fromkeys(f for split in splits.values() for part in split for f in part[0]))
    place = {file: i for i, file in enumerate(files)}
    classes = len({label for split in splits.values() for part in split for label in part[1]})
    names, _ = networks.labels_and_files(args.models, args.checkpoints, args.labels)
    content: dict[str, Any] = dict(
        kind='texture_knn',
        k=args.k,
        metric=args.metric,
        stage=args.stage,
        images=len(files),
        classes=classes,
        models=[],
        errors={},
    )

    def study(index: int) -> None:
        network, found = networks.network_with_features(args, index, files)
        top1 = {}
        for number, split in splits.items():
            sides = [
                (found[[place[f] for f in names]], np.array(labels)) for names, labels in split
            ]
            try:
                top1[number] = neighbours.accuracy(*sides[0], *sides[1], args.k, args.metric)
            except ValueError as error:
                raise UserError(f'--k: {error}') from error
        figures = dict(label=network.label, weights=network.weights, splits=top1)
        content['models'].append(dict(figures, mean=sum(top1.values()) / len(top1)))

    def save(errors: dict[str, str]) -> None:
        content['errors'] = errors
        with replacing(args.out / 'texture_knn.json') as path:
            path.write_text(json.dumps(content, indent=1))

    status = one_by_one(names, study, save)
    head = ['model', *(f'split {n}' for n in splits), 'mean']
    rows = [
        [m['label'], *(f'{v:.2f}' for v in m['splits'].values()), f'{m["mean"]:.2f}']
        for m in content['models']
    ]
    title = f'top-1 accuracy in per cent, k = {args.k}, {args.metric}, {classes} classes'
    print_table(title, head, [*rows, *failed_rows(content['errors'], len(head))])
    if rows:
        wrote(args.out)
    return status
