r"""Shape and texture dimensions of backbones, and a generator of images for them.

python tools/analysis/shape_texture.py measure cue-conflict/ CONFIG --checkpoints FILE --out DIR
python tools/analysis/shape_texture.py measure cue-conflict/ "dict(type='hybrid_mm.VAN')" CONFIG \
    --labels LKA other --out DIR
python tools/analysis/shape_texture.py generate shapes/ textures/ my-conflict/

`measure` estimates how many dimensions of the globally averaged map encode shape, and how many
texture, from images with the shape of one class and the texture of another: the official
cue-conflict set (1280 images in 16 folders, <shape><i>-<texture><j>.png), or one of `generate`.
Every image is paired with a random one of the same shape and one of the same texture; figures are
means over several seeds. --normalise neuron uses the paper's formula instead of that of its code.

`generate` renders each image of the folder of shapes with pieces of each texture of another class.
Folders of folders have a class per folder; in a flat folder each image is a class of its own.
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
    """Run `measure` or `generate`."""
    parser = options.parser(__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    measure = commands.add_parser('measure', help='measure backbones')
    measure.add_argument('pairs', help='folder of the images')
    measure.add_argument('models', nargs='+', help="config, or dict(type='...', ...)")
    measure.add_argument(
        '--out', required=True, type=Path, metavar='DIR', help='folder of the results'
    )
    options.add_network_options(measure)
    options.add_feature_options(measure)
    measure.add_argument(
        '--normalise',
        choices=('pooled', 'neuron'),
        default='pooled',
        help="scores of all neurons together, as the paper's code, or of each, as its formula "
        '(default: pooled)',
    )
    measure.add_argument('--seeds', type=int, default=5, help='choices of partners (default: 5)')
    generate = commands.add_parser('generate', help='make images')
    generate.add_argument('shapes', help='folder of the images that give the shape')
    generate.add_argument('textures', help='folder of the images that give the texture')
    generate.add_argument('out', type=Path, help='folder of the new images')
    generate.add_argument('--size', type=int, default=224, help='side (default: 224)')
    generate.add_argument('--limit', type=int, help='images per class')
    generate.add_argument(
        '--weight', type=float, default=0.6, help='0 texture only, 1 shape only (default: 0.6)'
    )
    generate.add_argument('--seed', type=int, default=0, help='of the pieces (default: 0)')
    args = parser.parse_args(argv)
    check_output_folder(args.out, 'out' if args.command == 'generate' else '--out')
    if args.command == 'generate':
        if args.size < 32 or not 0 <= args.weight <= 1:
            parser.error('--size must be at least 32 and --weight lie between 0 and 1')
        return _generate(args)
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')
    return _measure(args)


def _generate(args) -> None:
    from hybrid_mm.analysis import conflict_pairs
    from hybrid_mm.run.console import progress

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
    print(f'{count} images in {args.out}')


def _measure(args) -> None:
    from hybrid_mm.analysis import conflict_pairs, networks
    from hybrid_mm.analysis.dimensions import dimensions

    images, without = conflict_pairs.read_set(args.pairs)
    if without:
        print(f'{without} images without a conflict are skipped')
    choices = [conflict_pairs.make_pairs(images, seed) for seed in range(args.seeds)]
    figures = []
    for network, found in networks.networks_with_features(args, [image.path for image in images]):
        results = []
        for pairs in choices:
            factors = [list(zip(*pairs[name], strict=True)) for name in conflict_pairs.FACTORS]
            try:
                results.append(
                    dimensions(
                        [(found[list(a)], found[list(b)]) for a, b in factors], args.normalise
                    )
                )
            except ValueError as error:
                raise UserError(f'{network.label}: {error}') from error
        figures.append(_summary(network, found.shape[1], results))
    content = dict(
        kind='shape_texture',
        images=len(images),
        pairs={name: len(found) for name, found in choices[0].items()},
        normalise=args.normalise,
        seeds=args.seeds,
        stage=args.stage,
        size=args.size,
        models=figures,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'shape_texture.json').write_text(json.dumps(content, indent=1))
    _plot(figures, args.out / 'shape_texture.png')
    _print(content)
    print(f'results in {args.out}')


def _summary(network, neurons: int, results: list) -> dict:
    import numpy as np

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
    print_table(title, head, rows)


def _plot(figures: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.4 * len(figures)), layout='constrained')
    ax = figure.subplots()
    labels = [model['label'] for model in figures]
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


if __name__ == '__main__':
    sys.exit(main())
