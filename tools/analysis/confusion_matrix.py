"""Draw the confusion matrix of predictions that tools/test.py --out wrote.

python tools/analysis/confusion_matrix.py CONFIG predictions.pkl FOLDER       # detection
python tools/analysis/confusion_matrix.py CONFIG label_maps/ FOLDER           # segmentation
python tools/analysis/confusion_matrix.py CONFIG predictions.pkl FOLDER       # classification

Other flags are those of confusion_matrix.py of MMDetection, MMSegmentation or MMPretrain.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Run the script of the config's library, which draws confusion_matrix.png."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('predictions', help='file or folder that tools/test.py --out wrote')
    parser.add_argument('out', help='folder of the picture confusion_matrix.png')
    options.add_config_options(parser)
    args, others = parser.parse_known_args(argv)

    from hybrid_mm.commands.confusion_matrix import run

    run(args, others)


if __name__ == '__main__':
    sys.exit(main())
