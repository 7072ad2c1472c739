r"""Texture classification by nearest neighbours in the features of backbones (DTD).

python tools/analysis/texture_knn.py data/dtd CONFIG --checkpoints FILE --out DIR
python tools/analysis/texture_knn.py data/dtd "dict(type='hybrid_mm.VAN')" CONFIG --splits 1 2 3 \
    --metric cosine --k 5 --out DIR

Features are global averages of a map. Each query image (val) gets the most frequent label of its k
nearest reference images (train). The folder has DTD's layout: images/<class>/*.jpg and
labels/{train,val,test}{1..10}.txt.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
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

    from hybrid_mm.commands.texture_knn import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
