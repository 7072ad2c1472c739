"""SIGKILL at random moments of a detector with workers and augmentation, then ``--resume``."""

import subprocess
import sys

import pytest

from .conftest import ROOT, environment


@pytest.mark.timeout(500)
def test_killed_runs_end_as_the_one_left_alone(det_config, tmp_path):
    script = ROOT / 'tests' / 'faults' / 'kill_and_resume.py'
    options = ['train_cfg.max_iters=8', 'train_cfg.val_interval=4']
    options += ['train_dataloader.num_workers=2', 'model.backbone.drop_path_rate=0.1']
    line = [sys.executable, script, det_config, '--kills', '3', '--work-dir', tmp_path / 'runs']
    job = subprocess.run(
        [*line, '--cfg-options', *options], env=environment(), capture_output=True, text=True
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert job.stdout.splitlines()[-1].endswith('all identical')
    assert job.stdout.count('kill') >= 3
