"""Draw the training data as the model sees them: the browser of the config's library.

python tools/analysis/browse_dataset.py CONFIG --output-dir pictures --not-show

Other flags are those of browse_dataset.py of MMDetection, MMSegmentation or MMPretrain.
"""

import sys

from hybrid_mm.engine import cli

SCRIPTS = {
    'mmdet': 'analysis_tools/browse_dataset.py',
    'mmseg': 'analysis_tools/browse_dataset.py',
    'mmpretrain': 'visualization/browse_dataset.py',
}


@cli.tool
def main(argv=None):
    """Run the tool."""
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config file')
    cli.add_config_options(parser)
    args, others = parser.parse_known_args(argv)

    from hybrid_mm.engine.preflight import check_data
    from hybrid_mm.engine.upstream import run_upstream

    cfg = cli.load_config(args.config, args.cfg_options)
    check_data(cfg, 'train_dataloader')
    run_upstream(cfg, SCRIPTS, cli.with_options(cfg, others, args.cfg_options))


if __name__ == '__main__':
    sys.exit(main())
