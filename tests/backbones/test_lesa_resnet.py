"""LESA's ResNets: sizes of the paper's networks, files of other canvases and without offsets."""

import pytest
import torch

from hybrid_mm.backbones import LESAResNet
from hybrid_mm.layers.attention.lesa import LESA2d

SMALL = dict(
    arch=dict(
        stem=8,
        bottleneck=True,
        depths=[1, 1, 2, 1],
        widths=[4, 8, 8, 16],
        out_channels=[8, 12, 16, 20],
    ),
    groups=2,
)


@pytest.mark.parametrize(
    ('arch', 'settings', 'count'),
    [
        ('r50', dict(positions='flat', strides=(1, 2, 2, 1)), 23_777_512 - 2_049_000),
        ('r50', dict(strides=(1, 2, 2, 1)), 23_505_992 - 2_049_000),
        ('wrn50', dict(positions='flat', strides=(1, 2, 2, 1)), 61_145_896 - 2_049_000),
        ('wrn50', dict(strides=(1, 2, 2, 1)), 60_602_984 - 2_049_000),
        ('r50', dict(canvas_size=(1024, 1024)), 21_484_000),
        ('wrn50', dict(canvas_size=(1280, 1280)), 58_626_432),
        ('r50', dict(canvas_size=(1024, 1024), deformable=(False, True, True, True)), 22_064_842),
        ('wrn50', dict(canvas_size=(1280, 1280), deformable=(False, True, True, True)),
         59_787_882),
    ],
)  # fmt: skip
def test_parameters(arch, settings, count):
    with torch.device('meta'):
        model = LESAResNet(arch, **settings)
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(isinstance(m, LESA2d) for m in model.modules()) == 8


def test_files_of_another_canvas_and_without_offsets_load():
    small = LESAResNet(canvas_size=(64, 64), **SMALL)
    state = small.state_dict()
    large = LESAResNet(canvas_size=(128, 96), deformable=(False, True, True, True), **SMALL)
    large.load_strictly(state, 'a test')
    layer = large.stages[2].blocks[1].conv2
    assert layer.rel_h.shape == (15, 2) and layer.rel_w.shape == (11, 2)
    table = small.stages[2].blocks[1].conv2.rel_h
    torch.testing.assert_close(layer.rel_h[[0, 7, 14]], table[[0, 3, 6]])
    # offsets of 0: the plain convolution, so the same maps at the size of the file's canvas
    plain = LESAResNet(canvas_size=(128, 96), **SMALL)
    plain.load_strictly(state, 'a test')
    x = torch.rand(1, 3, 64, 64)
    for a, b in zip(large.eval()(x), plain.eval()(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dilation_is_refused():
    with pytest.raises(ValueError, match='dilations of LESAResNet must be 1'):
        LESAResNet(dilations=(1, 1, 1, 2), **SMALL)
