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

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
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
    if args.command == 'generate':
        if args.size < 32 or not 0 <= args.weight <= 1:
            parser.error('--size must be at least 32 and --weight lie between 0 and 1')
    elif args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')

    from hybrid_mm.commands.shape_texture import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
