"""Segmenters with one channel for two classes: prediction, test and test-time augmentation."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from hybrid_mm.apis import Predictor
from hybrid_mm.openmmlab.segmentation_tta import SegmentationTTAModel


class BaseSegmenter(nn.Module):
    def test_step(self, data):
        raise NotImplementedError


def merged(views, channels, threshold=0.5):
    module = BaseSegmenter()
    module.out_channels, module.decode_head = channels, SimpleNamespace(threshold=threshold)
    samples = []
    for values in views:
        sample = SegDataSample(metainfo=dict(img_path='a.png'))
        sample.seg_logits = PixelData(data=torch.tensor(values).reshape(channels, 1, -1))
        samples.append(sample)
    (found,) = SegmentationTTAModel(module=module).merge_preds([samples])
    return found.pred_sem_seg.data


def test_probabilities_are_averaged_once():
    """The sigmoid of these would lie above one half everywhere."""
    views = [[0.1, 0.4, 0.6, 0.0], [0.3, 0.7, 0.9, 0.99]]
    for threshold, expected in ((0.5, [0, 1, 1, 0]), (0.15, [1, 1, 1, 1]), (0.6, [0, 0, 1, 0])):
        found = merged(views, 1, threshold)
        assert found.tolist() == [[expected]] and found.dtype == torch.int64, threshold
    # logits of several classes, as MMSegmentation does it
    assert merged([[5.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 9.0]], 2).tolist() == [[[0, 1]]]


@pytest.fixture
def binary(tiny_ade, seg_config, tmp_path):
    """Config of a segmenter of objects against the rest, and weights of it."""
    from mmengine.registry import MODELS, init_default_scope

    ade = Path(shutil.copytree(tiny_ade, tmp_path / 'ade'))
    cfg = Config.fromfile(seg_config)
    for path in ade.glob('annotations/*/*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), (labels > 0).astype(np.uint8))
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(data_root=str(ade), reduce_zero_label=False)
        dataset.metainfo = dict(classes=('rest', 'object'), palette=[[0, 0, 0], [255, 0, 0]])
        dataset.pipeline[1] = dict(type='LoadAnnotations')
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head = dict(num_classes=2, out_channels=1, threshold=0.3, loss_decode=loss)
    cfg.model.decode_head.update(head)
    path = tmp_path / 'binary.py'
    cfg.dump(path)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.decode_head.conv_seg.weight.data *= 300
    image = cv2.imread(str(ade / 'images/validation/0.png')).transpose(2, 0, 1)[None] / 255
    with torch.no_grad():  # both classes occur
        logits = model.eval()(torch.from_numpy(image).float())
    model.decode_head.conv_seg.bias.data -= logits.median() - 0.3
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'w.pth')
    return path, tmp_path / 'w.pth'


@pytest.mark.parametrize('flags', [(), ('--tta',)], ids=str)
def test_prediction_is_what_is_tested(binary, tool, tmp_path, flags):
    config, weights = binary
    run = ('test', config, weights, '--work-dir', tmp_path / 'w', '--out', tmp_path / 'maps')
    assert tool(*run, *flags)[0] == 0
    results = Predictor(config, weights, device='cpu', tta=bool(flags))(
        tmp_path / 'ade/images/validation'
    )
    assert len(results) == 4
    shares = []
    for found in results:
        written = cv2.imread(str(tmp_path / 'maps' / found.name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found.label_map, written)
        assert found.label_map.dtype == np.int64
        shares.append(found.shares().get('object', 0))
    assert 0.05 < np.mean(shares) < 0.95


def test_it_trains(binary, tool, tmp_path):
    options = ('--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1')
    assert tool('train', binary[0], '--work-dir', tmp_path / 'w', *options)[0] == 0
