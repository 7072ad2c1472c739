"""Two gloo processes against one process with the whole batch."""

import json
from pathlib import Path

import pytest
import torch


def _run(fork_tool, config: Path, work_dir: Path, processes: int, *options: str) -> dict:
    """Train; return the losses of each iteration and the last checkpoint."""
    flags = ('--work-dir', work_dir, '--no-validate', '--cfg-options', 'train_cfg.max_iters=4')
    fork_tool('train', processes, config, *flags, *options)
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [{k: v for k, v in r.items() if 'loss' in k} for r in records]
    checkpoint = torch.load(work_dir / 'iter_4.pth', map_location='cpu', weights_only=False)
    return dict(losses=losses, weights=checkpoint['state_dict'])


@pytest.mark.timeout(600)
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_two_processes_train_as_one_with_the_whole_batch(task, request, fork_tool, tmp_path):
    config = request.getfixturevalue(f'{task}_config')
    # the batch statistics of the backbone too are those of all processes
    sync = 'sync_bn=torch'
    one = _run(fork_tool, config, tmp_path / 'one', 1, 'train_dataloader.batch_size=4')
    two = _run(fork_tool, config, tmp_path / 'two', 2, 'train_dataloader.batch_size=2', sync)
    assert len(one['losses']) == len(two['losses']) == 4
    assert one['losses'][0]['loss'] != one['losses'][3]['loss']  # it trains
    for ours, theirs in zip(two['losses'], one['losses'], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert one['weights'].keys() == two['weights'].keys()
    for name, weight in one['weights'].items():
        torch.testing.assert_close(two['weights'][name], weight, rtol=1e-3, atol=1e-5, msg=name)
