"""Parameters and multiply-adds (MACs) of a backbone or of the model of a config.

python tools/complexity.py --arch b0                        # hybrid_mm.VAN, 224 x 224
python tools/complexity.py --backbone "dict(type='hybrid_mm.VAN', arch='b2', attention='lska')"
python tools/complexity.py configs/van/mask-rcnn_van-b0_fpn_1x_coco.py --shape 800 1280

Multiply-adds of convolutions, linear layers and matrix products are counted for one image, with
1000 RoIs per box head and 100 per mask head, without auxiliary heads.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Print parameters and multiply-adds by module, as a table or JSON."""
    parser = options.parser(__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument('config', nargs='?', help='config file')
    model.add_argument('--backbone', metavar='DICT', help="backbone: dict(type='...', ...)")
    model.add_argument('--arch', help="short for --backbone dict(type='hybrid_mm.VAN', arch=ARCH)")
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='height and width, or one number for both (channels before height and width if not '
        '3); by default 800 1280 for detection, 512 512 for segmentation, 224 224 otherwise',
    )
    parser.add_argument('--depth', type=int, default=2, help='depth of the table (default: 2)')
    parser.add_argument('--json', metavar='FILE', help='write the figures to this file as well')
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.cfg_options and not args.config:
        parser.error('--cfg-options needs a config')

    from hybrid_mm.commands.complexity import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
