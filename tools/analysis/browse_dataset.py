"""Draw the training data after augmentation, with browse_dataset.py of the config's library.

python tools/analysis/browse_dataset.py CONFIG --output-dir pictures --not-show

Other flags are those of browse_dataset.py of MMDetection, MMSegmentation or MMPretrain.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Check the data, then run the script of the library."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    options.add_config_options(parser)
    args, others = parser.parse_known_args(argv)

    from hybrid_mm.commands.browse_dataset import run

    run(args, others)


if __name__ == '__main__':
    sys.exit(main())
