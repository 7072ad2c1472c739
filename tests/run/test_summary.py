"""The lines that a run shows of itself."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import LinearLR, OptimWrapper, OptimWrapperDict, PolyLR
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from hybrid_mm.run import summary

NAMES = ['config', 'work dir', 'log', 'model', 'weights', 'data', 'optimizer', 'batch', 'length',
         'precision', 'start']  # fmt: skip


def lines(out):
    """Lines of a summary by their names."""
    names = (line[:12].strip() for line in out.splitlines())
    return {n: line[12:] for n, line in zip(names, out.splitlines(), strict=True) if n in NAMES}


def test_terminal_and_log_file(tool, det_config, tmp_path):
    folder, cfg = tmp_path / 'w', ['--cfg-options', 'train_cfg.max_iters=1']
    assert tool('train', det_config, '--work-dir', folder, *cfg)[0] == 0
    out, (file,) = tool.out, folder.glob('*/*.log')
    log = file.read_text()
    found = lines(out)
    assert list(found) == NAMES
    assert found['config'] == str(det_config)
    assert found['log'] == str(file)
    assert found['model'].startswith('FCOS of 33.2 k parameters: VAN 15.1 k, FPN')
    assert found['weights'] == 'random'
    assert found['data'] == (
        '8 images (CocoDataset) for training, 4 for validation; 3 classes: square, disc, bar'
    )
    assert found['optimizer'] == 'SGD, lr 0.01, weight decay 0; 1 group'
    assert found['batch'].startswith('2 images; the learning rate is meant for 16')
    assert found['length'].startswith('1 iteration, constant lr; validation every 100 iterations')
    assert found['precision'].startswith('float32 on cpu (')
    assert found['start'] == 'from the beginning, seed 0'
    before, _, after = out.partition('Iter(train)')
    assert len(before.splitlines()) <= 12
    assert 'loss: ' in after and 'coco/bbox_mAP: ' in after
    assert out.splitlines()[-1].endswith(f'checkpoint {folder / "iter_1.pth"}')
    for detail in ('System environment:', 'Config:', 'Hooks will be executed', 'copypaste'):
        assert detail in log and detail not in out
    for line in out.splitlines():
        assert line.partition(' - INFO - ')[2] in log if ' - INFO - ' in line else line in log

    checkpoint = folder / 'iter_1.pth'
    run = ('test', det_config, checkpoint, '--work-dir', tmp_path / 't')
    assert tool(*run)[0] == 0
    found = lines(tool.out)
    assert found['weights'] == str(checkpoint)
    assert found['data'] == '4 images (CocoDataset); 3 classes: square, disc, bar'
    assert 'Hooks will be' not in tool.out and 'bbox_mAP' in tool.out
    assert tool(*run, '--verbose')[0] == 0
    assert 'Hooks will be executed' in tool.out and 'Average Precision' in tool.out


def test_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [
        dict(params=[model[0].weight], lr=1e-5, weight_decay=0.05),
        dict(params=[model[1].weight], lr=1e-4, weight_decay=0.05),
        dict(params=[model[0].bias], lr=1e-5, weight_decay=0.0),
        dict(params=[model[1].bias], lr=1e-5, weight_decay=0.0),
    ]
    wrapper = OptimWrapper(torch.optim.AdamW(groups), clip_grad=dict(max_norm=5))
    text = (
        'AdamW, lr 1e-05 to 0.0001, weight decay 0 to 0.05 (none for 2 of 4 tensors), gradients '
        'clipped at 5; 3 groups'
    )
    assert summary._optimizer(wrapper) == text
    LinearLR(wrapper, start_factor=0.1, end=3)  # the rate is that after the warm-up
    assert summary._optimizer(wrapper) == text
    assert summary._optimizer(OptimWrapperDict(a=wrapper)) == f'a: {text}'


def test_schedule_and_length():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    schedulers = [
        LinearLR(optimizer, start_factor=0.1, end=1500, by_epoch=False),
        PolyLR(optimizer, begin=1500, end=160000, by_epoch=False),
    ]
    assert summary._schedule(schedulers) == 'PolyLR after 1,500 iterations of warm-up'
    assert summary._schedule([]) == summary._schedule(None) == 'constant lr'
    assert summary._schedule(dict(a=schedulers, b=[])) == (
        'a: PolyLR after 1,500 iterations of warm-up; b: constant lr'
    )
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop._max_epochs, loop._max_iters, loop.val_interval = 12, 87960, 1
    loop.dataloader = range(7330)
    runner = SimpleNamespace(train_loop=loop, param_schedulers=[], val_loop=object(), hooks=[])
    assert summary._length(runner) == (
        '12 epochs of 7,330 iterations, constant lr; validation every epoch, no checkpoints'
    )


@pytest.mark.parametrize(
    ('model', 'expected'),
    [
        (dict(), 'random'),
        (
            dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='/x/a.pth'))),
            'backbone: /x/a.pth, the rest random',
        ),
        (
            dict(pretrained='torchvision://resnet50'),
            'model: torchvision://resnet50, the rest random',
        ),
        (
            dict(neck=dict(init_cfg=[dict(type='Pretrained', checkpoint='n.pth')])),
            'neck: n.pth, the rest random',
        ),
    ],
)
def test_weights(model, expected):
    runner = SimpleNamespace(cfg=Config(dict(model=model)), hooks=[])
    assert summary._weights(runner, None) == expected
    assert summary._weights(runner, 'iter_4.pth') == 'all from iter_4.pth'


def test_files_of_weights(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    url, name = 'https://example.org/a/resnet.pth', 'hybrid_mm://van-b0_in1k'
    assert summary._file(url).startswith(f'{url} (hub/checkpoints/')
    Path('checkpoints').mkdir()
    torch.save({}, 'checkpoints/van-b0_in1k.pth')
    assert summary._file(name) == f'{name} (checkpoints/van-b0_in1k.pth)'


@pytest.mark.parametrize(('iteration', 'expected'), [(8, 'finished after'), (4, 'stopped after')])
def test_the_end_of_a_run_that_stops_early(iteration, expected, capsys, monkeypatch):
    monkeypatch.setattr(summary, '_checkpoints', lambda runner: 'checkpoint x.pth')
    logger = logging.Logger('run')
    logger.addHandler(logging.NullHandler())
    loop = SimpleNamespace(max_iters=8)
    summary.SummaryHook(None).after_train(
        SimpleNamespace(iter=iteration, train_loop=loop, logger=logger)
    )
    out = capsys.readouterr().out
    assert out.startswith(expected) and out.endswith(': checkpoint x.pth\n')
    assert ('at iteration 4 of 8' in out) == (iteration == 4)


def test_a_part_that_is_unknown_does_not_stop_a_run():
    def fails():
        raise AttributeError('no')

    (line, other) = summary._lines(('data', fails), ('model', lambda: 'x'))
    assert line.split() == ['data', 'not', 'known', '(AttributeError:', 'no)']
    assert other.split() == ['model', 'x']
