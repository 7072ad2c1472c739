"""Print a config with its bases and overrides resolved.

python tools/print_config.py configs/demo/... --cfg-options model.backbone.arch=b1
python tools/print_config.py configs/demo/... --key optim_wrapper param_scheduler train_cfg
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Print the resolved config or a part of it, or write it to a file."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--key',
        nargs='+',
        action='extend',
        metavar='KEY',
        help='print these parts only, e.g. model.backbone optim_wrapper.optimizer.lr',
    )
    parser.add_argument('--save', metavar='FILE', help='write a .py, .json or .yml file instead')
    options.add_config_options(parser)
    args = parser.parse_args(argv)

    from hybrid_mm.commands.print_config import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
