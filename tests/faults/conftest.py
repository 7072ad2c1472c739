"""Copies of the tiny data sets, to be broken, and training runs of several processes."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _plain(plain_runs):
    pass


@pytest.fixture
def coco(tiny_coco, tmp_path) -> Path:
    """A copy of ``tiny_coco``."""
    return Path(shutil.copytree(tiny_coco, tmp_path / 'coco'))


@pytest.fixture
def ade(tiny_ade, tmp_path) -> Path:
    """A copy of ``tiny_ade``."""
    return Path(shutil.copytree(tiny_ade, tmp_path / 'ade'))


def command(config: Path, work_dir: Path, processes: int, *options: str) -> list[str]:
    """A training run of 4 images per step in all."""
    tool = [str(ROOT / 'tools' / 'train.py'), str(config), '--work-dir', str(work_dir)]
    start = [sys.executable]
    if processes > 1:
        start += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        tool += ['--launcher', 'pytorch']
    flags = [o for o in options if o.startswith('--')]
    batch = f'train_dataloader.batch_size={4 // processes}'
    values = [o for o in options if not o.startswith('--')]
    return [*start, *tool, *flags, '--no-validate', '--cfg-options', batch, *values]


def environment() -> dict:
    return dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PYTHONPATH=str(ROOT))


def losses(work_dir: Path) -> list[dict]:
    """Losses of each iteration, of all runs in a work dir."""
    paths = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(text) for path in paths for text in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if 'loss' in k or k == 'step'} for r in records]


@pytest.fixture
def train(tool, fork_tool):
    """Train, alone in this process or in several forks of it; see :func:`losses`."""

    def run(config: Path, work_dir: Path, processes: int, *options: str) -> list[dict]:
        line = command(config, work_dir, processes, *options)
        if processes == 1:
            assert tool('train', *line[2:])[0] == 0
        else:
            arguments = line[line.index(str(config)) :]
            where = arguments.index('--launcher')
            fork_tool('train', processes, *arguments[:where], *arguments[where + 2 :])
        return losses(work_dir)

    return run


def children(pid: int) -> list[int]:
    path = Path(f'/proc/{pid}/task/{pid}/children')
    return [int(child) for child in path.read_text().split()]
