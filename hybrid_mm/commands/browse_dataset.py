"""What ``tools/analysis/browse_dataset.py`` does once its arguments are read."""

import argparse

from hybrid_mm.run.checks.data import check_data
from hybrid_mm.run.config import load_config, with_options
from hybrid_mm.run.quiet import quietly
from hybrid_mm.run.upstream import run_upstream

SCRIPTS = {
    'mmdet': 'analysis_tools/browse_dataset.py',
    'mmseg': 'analysis_tools/browse_dataset.py',
    'mmpretrain': 'visualization/browse_dataset.py',
    'mmpose': 'misc/browse_dataset.py',
    'mmrotate': 'analysis_tools/browse_dataset.py',
}


@quietly
def run(args: argparse.Namespace, others: list[str]) -> None:
    """Check the data, then run the script of the library."""
    cfg = load_config(args.config, args.cfg_options)
    check_data(cfg, 'train_dataloader')
    run_upstream(cfg, SCRIPTS, with_options(cfg, others, args.cfg_options))
