"""CIFAR-10: data set, schedule and recipe of the quadratic-attention encoder."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS
from mmpretrain.datasets import CIFAR10

from .conftest import CONFIGS, build, load, optimizer, reduced, scope

CONFIG = CONFIGS / 'quadratic_attention/quadratic_1xb100-300e_cifar10.py'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Files of the official layout, of three images each, without the official checksums."""
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        batch = dict(data=rng.integers(0, 256, (3, 3 * 32 * 32), dtype=np.uint8), labels=[0, 4, 9])
        (folder / name).write_bytes(pickle.dumps(batch))
    for key in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR10, key, [[name, None] for name, _ in getattr(CIFAR10, key)])
    monkeypatch.setenv('CIFAR_ROOT', str(tmp_path))
    return tmp_path


def test_pipelines_on_files(root):
    cfg = reduced(CONFIG)
    with scope(cfg):
        train = DATASETS.build(cfg.train_dataloader.dataset)
        val = DATASETS.build(cfg.val_dataloader.dataset)
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        seen = preprocess(pseudo_collate([val[1]]), training=False)
    assert (len(train), len(val)) == (15, 3)
    assert train[0]['inputs'].shape == (3, 32, 32)
    assert seen['data_samples'][0].gt_label.tolist() == [4]
    # the official code: divided by 255, then these means and deviations of red, green and blue
    image = val.get_data_info(1)['img'].transpose(2, 0, 1) / 255
    mean = np.array([0.4914, 0.4822, 0.4465])[:, None, None]
    std = np.array([0.2023, 0.1994, 0.2010])[:, None, None]
    np.testing.assert_allclose(seen['inputs'][0].numpy(), (image - mean) / std, atol=1e-3)


def test_schedule():
    """The official code sets the rate once an epoch."""
    cfg = load(CONFIG)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optim = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optim, epoch_length=10))
        for s in cfg.param_scheduler
    ]
    optim.step()
    rates = []
    for _ in range(300):
        rates.append(optim.param_groups[0]['lr'])
        for scheduler in schedulers:
            assert scheduler.by_epoch
            scheduler.step()
    assert rates[0] == pytest.approx(1e-4)
    assert rates[15] == max(rates) == pytest.approx(0.1)
    assert (rates[157] + rates[158]) / 2 == pytest.approx(0.05, rel=1e-3)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(
    'name',
    [
        CONFIG.stem,
        'quadratic-r50_8xb128-100e_in1k',
        'mask-rcnn_quadratic-r50_fpn_1x_coco',
        'quadratic-r50_upernet_8xb2-160k_ade20k-512x512',
    ],
)
def test_centres_and_spreads_do_not_decay(name):
    cfg = reduced(CONFIG.with_name(f'{name}.py'))
    model = build(cfg)
    groups = optimizer(cfg, model).optimizer.param_groups
    decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    found = {
        n.rsplit('.', 1)[1]: decay[id(p)]
        for n, p in model.backbone.named_parameters()
        if p.requires_grad and ('.attn.' in n or '.conv2.' in n)
    }
    assert found['centers'] == found['spreads'] == 0
    assert found['weight'] == cfg.optim_wrapper.optimizer.weight_decay
