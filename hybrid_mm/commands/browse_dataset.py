"""What ``tools/analysis/browse_dataset.py`` does once its arguments are read."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config

from hybrid_mm.run.checks.channels import check_channels, loader_of
from hybrid_mm.run.checks.data import check_data
from hybrid_mm.run.checks.datasets import readers
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
    check_channels(cfg, 'train')
    check_data(cfg, 'train_dataloader')
    with pictures(cfg) as path:
        run_upstream(cfg, SCRIPTS, [path, *with_options(cfg, others, args.cfg_options)[1:]])


@contextmanager
def pictures(cfg: Config) -> Iterator[str]:
    """Path of a config whose pipeline gives pictures, for the time of the context.

    The scripts draw on what the pipeline gives, as three channels of 8 bits.
    """
    loader = None
    for dataset in readers(cfg.train_dataloader.dataset):
        loader = loader_of(dataset.get('pipeline'))
        if loader is not None:
            step = dict(type='hybrid_mm.ShowChannels', picture=loader.get('picture'))
            *steps, pack = dataset['pipeline']
            dataset['pipeline'] = [*steps, step, pack]
    if loader is None:
        yield cfg.filename
        return
    with TemporaryDirectory() as folder:
        path = str(Path(folder, Path(cfg.filename).name))
        cfg.dump(path)
        yield path
