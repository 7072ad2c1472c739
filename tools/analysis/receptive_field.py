r"""Effective receptive field of backbones: which pixels the centre of a map depends on.

python tools/analysis/receptive_field.py CONFIG --checkpoints FILE --images photos/ --out DIR
python tools/analysis/receptive_field.py "dict(type='hybrid_mm.VAN')" CONFIG \
    --labels LKA other --images photos/ --size 1024 --count 50 --out DIR

Models are configs or dicts of a backbone. For each, the table has the side and the area of the
smallest centred squares that contain 20, 30, 50 and 99 per cent of the (log-scaled) contribution.
Written to DIR are the maps side by side (receptive_fields.png), the scores (LABEL.npy) and the
figures (receptive_field.json). Without --checkpoints weights are random: the result says nothing
about a trained network. Images are resized to --size, ignoring their aspect ratio.
"""

import json
import re
import sys
from pathlib import Path

from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.console import print_table
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Print a table; write maps, scores and figures to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument('models', nargs='+', help="config, or dict(type='...', ...) of a backbone")
    parser.add_argument('--images', required=True, help='image, or folder (searched recursively)')
    parser.add_argument(
        '--out', required=True, type=Path, metavar='DIR', help='folder of the results'
    )
    options.add_network_options(parser)
    parser.add_argument(
        '--size',
        nargs='+',
        type=int,
        default=[1024],
        metavar='N',
        help='side, or height and width, of the images (default: 1024)',
    )
    parser.add_argument('--count', type=int, default=50, help='images that count (default: 50)')
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=[0.2, 0.3, 0.5, 0.99],
        metavar='T',
        help='shares of the contribution (default: 0.2 0.3 0.5 0.99)',
    )
    args = parser.parse_args(argv)
    if len(args.size) > 2 or min(args.size) < 32:
        parser.error(f'--size: expected one or two numbers of at least 32, got {args.size}')
    if args.count < 1 or not all(0 < t < 1 for t in args.thresholds):
        parser.error('--count must be at least 1 and --thresholds lie between 0 and 1')

    import numpy as np
    import torch

    from hybrid_mm.analysis import networks, receptive_field
    from hybrid_mm.run.console import progress

    check_output_folder(args.out)
    files = find_images(args.images, without=[args.out / 'receptive_fields.png'])
    device = options.torch_device(args.device)
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


if __name__ == '__main__':
    sys.exit(main())
