r"""Texture classification by nearest neighbours in the features of backbones (DTD).

python tools/analysis/texture_knn.py data/dtd CONFIG --checkpoints FILE --out DIR
python tools/analysis/texture_knn.py data/dtd "dict(type='hybrid_mm.VAN')" CONFIG --splits 1 2 3 \
    --metric cosine --k 5 --out DIR

Features are global averages of a map. Each query image (val) gets the most frequent label of its k
nearest reference images (train). The folder has DTD's layout: images/<class>/*.jpg and
labels/{train,val,test}{1..10}.txt.
"""

import json
import sys
from pathlib import Path

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.console import print_table
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Print a table of accuracies; write texture_knn.json to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument('root', help='folder of the data set')
    parser.add_argument('models', nargs='+', help="config, or dict(type='...', ...) of a backbone")
    parser.add_argument(
        '--out', required=True, type=Path, metavar='DIR', help='folder of the results'
    )
    options.add_network_options(parser)
    options.add_feature_options(parser)
    parser.add_argument('--k', type=int, default=1, help='neighbours (default: 1)')
    parser.add_argument(
        '--metric', choices=('l2', 'cosine'), default='l2', help='distance (default: l2)'
    )
    parser.add_argument('--splits', nargs='+', type=int, default=[1], help='1 to 10 (default: 1)')
    splits = ('train', 'val', 'test')
    parser.add_argument(
        '--reference', default='train', choices=splits, help='labelled images (default: train)'
    )
    parser.add_argument(
        '--queries', default='val', choices=splits, help='images to label (default: val)'
    )
    args = parser.parse_args(argv)
    if args.reference == args.queries:
        parser.error('--reference and --queries are the same images')

    import numpy as np

    from hybrid_mm.analysis import neighbours, networks

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


if __name__ == '__main__':
    sys.exit(main())
