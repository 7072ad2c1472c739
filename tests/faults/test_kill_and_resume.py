"""SIGKILL at the worst moments of a detector with workers and augmentation, then ``--resume``."""

import os
import subprocess
import sys

import pytest

from .conftest import ROOT, environment
from .kill_and_resume import result

OPTIONS = ('train_cfg.max_iters=8', 'train_cfg.val_interval=4',
           'train_dataloader.num_workers=2', 'model.backbone.drop_path_rate=0.1')  # fmt: skip


def replaced(name: str, before: bool):
    """Moment at which a file gets its name, or just has it."""

    def arm(shoot) -> None:
        replace = os.replace

        def watched(source, target):
            if before and os.path.basename(target) == name:
                shoot()
            replace(source, target)
            if os.path.basename(target) == name:
                shoot()

        os.replace = watched

    return arm


def validating(shoot) -> None:
    """Moment in the middle of a validation."""
    from mmengine.evaluator import Evaluator

    process = Evaluator.process

    def watched(self, *args, **kwargs):
        process(self, *args, **kwargs)
        shoot()

    Evaluator.process = watched


# a half-written one; one that nothing names yet; one whose validation did not end
MOMENTS = [replaced('iter_2.pth', True), replaced('iter_4.pth', False), validating,
           replaced('iter_6.pth', False)]  # fmt: skip


def test_killed_runs_end_as_the_one_left_alone(det_config, fork_tool, tmp_path):
    flags = (det_config, '--seed', '0', '--resume')
    fork_tool('train', 1, *flags, '--work-dir', tmp_path / 'whole', '--cfg-options', *OPTIONS)
    flags = (*flags, '--work-dir', tmp_path / 'cut', '--cfg-options', *OPTIONS)
    for moment in MOMENTS:
        fork_tool('train', 1, *flags, dies=moment)
    assert (tmp_path / 'cut' / 'last_checkpoint').read_text().endswith('iter_4.pth')
    fork_tool('train', 1, *flags)
    assert result(tmp_path / 'cut') == result(tmp_path / 'whole')


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_killed_at_random(det_config, tmp_path):
    script = ROOT / 'tests' / 'faults' / 'kill_and_resume.py'
    line = [sys.executable, script, det_config, '--kills', '3', '--work-dir', tmp_path / 'runs']
    job = subprocess.run(
        [*line, '--cfg-options', *OPTIONS], env=environment(), capture_output=True, text=True
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert job.stdout.splitlines()[-1].endswith('all identical')
    assert job.stdout.count('kill') >= 3
