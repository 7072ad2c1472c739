"""Maps are contiguous: mmcv's RoIAlign silently takes channels-last memory for NCHW."""

import pytest
import torch

from hybrid_mm.backbones import VAN


def test_roi_align_of_a_map_equals_torchvision():
    RoIAlign = pytest.importorskip('mmcv.ops').RoIAlign
    from torchvision.ops import roi_align

    tiny = dict(embed_dims=[8, 8, 8, 8], depths=[1, 1, 1, 1], mlp_ratios=[1, 1, 1, 1])
    image = torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    maps = VAN(tiny, attention='lska').eval()(image)
    assert all(m.is_contiguous() for m in maps)
    rois = torch.tensor([[0.0, 8, 8, 50, 40], [1.0, 20, 5, 90, 60]])
    ours = RoIAlign(7, 0.25, 2, 'avg', True)(maps[0], rois)
    torch.testing.assert_close(ours, roi_align(maps[0], rois, 7, 0.25, 2, aligned=True))
