"""Draw the training data after augmentation, with browse_dataset.py of the config's library.

python tools/analysis/browse_dataset.py CONFIG --output-dir pictures --not-show

Other flags are those of browse_dataset.py of MMDetection, MMSegmentation or MMPretrain.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.config import load_config, with_options
from hybrid_mm.run.tool import tool

SCRIPTS = {
    'mmdet': 'analysis_tools/browse_dataset.py',
    'mmseg': 'analysis_tools/browse_dataset.py',
    'mmpretrain': 'visualization/browse_dataset.py',
}


@tool
def main(argv=None):
    """Check the data, then run the script of the library."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    options.add_config_options(parser)
    args, others = parser.parse_known_args(argv)

    from hybrid_mm.run.checks.data import check_data
    from hybrid_mm.run.upstream import run_upstream

    cfg = load_config(args.config, args.cfg_options)
    check_data(cfg, 'train_dataloader')
    run_upstream(cfg, SCRIPTS, with_options(cfg, others, args.cfg_options))


if __name__ == '__main__':
    sys.exit(main())
