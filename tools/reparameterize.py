"""Merge parallel kernels, norms and position embeddings, which only training needs.

python tools/reparameterize.py CONFIG work_dirs/try/epoch_36.pth deployed.pth
python tools/test.py CONFIG deployed.pth --cfg-options model.backbone.deploy=True

For every network with a `switch_to_deploy` (SLaK, PeLK, RepLKNet, LeViT). The merged model is
compared with the original one on a random image before it is written.
"""

import argparse
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of reparameterize.py."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('checkpoint', help=f'weights as they were trained: {options.CHECKPOINT}')
    parser.add_argument('output', help='file to write (.pth)')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        default=(224, 320),
        help='size of the image for the comparison (default: 224 320)',
    )
    options.add_config_options(parser)
    return parser.parse_args(argv)


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the merged checkpoint; print the parameters saved and the difference."""
    args = parse_args(argv)

    from hybrid_mm.commands.reparameterize import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
