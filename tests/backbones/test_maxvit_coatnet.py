"""MaxViT and CoAtNet beyond the contract."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hybrid_mm.backbones import CoAtNet, MaxViT

ARCH = dict(
    depths=[1, 1, 2, 1],
    channels=[8, 12, 16, 24],
    stem=dict(channels=(4, 8), bias=True),
    conv=dict(),
    norm=dict(eps=1e-5, momentum=0.1),
    ln_eps=1e-6,
)
MAX = dict(ARCH, approximate='none')
COAT = dict(ARCH, kinds=['C', 'C', 'T', 'T'], attention=dict())


def parameters(cls, arch, classes=1000, **kwargs):
    """Of a classifier; the heads of the papers have a hidden layer."""
    with torch.device('meta'):
        model = cls(arch, norm_outputs=True, out_indices=(3,), **kwargs)
        channels = model.stage_channels[-1]
        head = [nn.Linear(channels, classes)]
        if 'rw' not in arch:
            head.append(nn.Linear(channels, channels))
    return sum(p.numel() for m in (model, *head) for p in m.parameters())


@pytest.mark.parametrize(
    'arch, window, count',
    [
        ('tiny', 7, 30_916_528), ('tiny', 12, 30_977_008), ('tiny', 16, 31_049_584),
        ('small', 7, 68_927_956), ('base', 7, 119_467_708), ('large', 7, 211_785_560),
        ('xlarge', 7, 474_951_952), ('tiny-rw', 7, 29_057_312), ('nano-rw', 8, 15_451_148),
        ('pico-rw', 8, 7_457_996), ('rmlp-pico-rw', 8, 7_515_980), ('rmlp-nano-rw', 8, 15_501_452),
        ('rmlp-tiny-rw', 8, 29_148_896), ('rmlp-small-rw', 7, 64_895_044),
        ('rmlp-base-rw', 7, 116_135_788 - 768 * 769),  # its classifier has a hidden layer as well
    ],
)  # fmt: skip
def test_parameters_of_maxvit(arch, window, count):
    assert parameters(MaxViT, arch, window_size=window) == count


@pytest.mark.parametrize(
    'arch, count',
    [
        ('0', 25_036_820), ('1', 42_225_776), ('2', 74_684_744), ('3', 166_966_264),
        ('4', 275_425_288), ('5', 687_472_008), ('0-rw', 27_435_562), ('1-rw', 41_721_502),
        ('2-rw', 73_868_400), ('nano-rw', 15_141_244), ('rmlp-1-rw2', 41_724_622),
        ('rmlp-2-rw', 73_881_264), ('pico-rw', 10_851_364), ('rmlp-nano-rw', 15_145_116),
        ('rmlp-0-rw', 27_446_074), ('rmlp-1-rw', 41_691_982), ('rmlp-3-rw', 165_152_788),
    ],
)  # fmt: skip
def test_parameters_of_coatnet(arch, count):
    assert parameters(CoAtNet, arch) == count


def test_window_of_another_size(tmp_path):
    source = MaxViT(MAX, window_size=4, head_width=4)
    torch.save(source.state_dict(), tmp_path / 'maxvit.pth')
    model = MaxViT(MAX, window_size=(8, 6), head_width=4)
    model.load_pretrained(str(tmp_path / 'maxvit.pth'))
    name = 'stages.1.blocks.0.grid.attn.relative_bias.table'
    expected = F.interpolate(source.state_dict()[name][None], (15, 11), mode='bilinear')
    assert torch.equal(model.state_dict()[name], expected[0])


def test_windows_as_large_as_the_map_are_global():
    torch.manual_seed(0)
    whole = CoAtNet(COAT, img_size=(64, 96), head_width=4).eval()
    windows = CoAtNet(COAT, img_size=(64, 96), head_width=4, windowed=True).eval()
    windows.load_state_dict(whole.state_dict())
    x = torch.rand(2, 3, 64, 96)
    for a, b in zip(whole(x), windows(x), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(whole(x.repeat(1, 1, 2, 1))[3], windows(x.repeat(1, 1, 2, 1))[3])


def test_norms_of_the_outputs(tmp_path):
    """Of a classifier's file the norm goes to the last map, where that is normed."""
    state = MaxViT(MAX, norm_outputs=True, out_indices=(3,), head_width=4).state_dict()
    state['stages.3.norm.weight'] = torch.full((24,), 3.0)
    torch.save(state, tmp_path / 'a.pth')
    plain = MaxViT(MAX, head_width=4)
    plain.load_pretrained(str(tmp_path / 'a.pth'))
    normed = MaxViT(MAX, head_width=4, norm_outputs=True)
    normed.load_pretrained(str(tmp_path / 'a.pth'))
    assert torch.equal(normed.stages[3].norm.weight, torch.full((24,), 3.0))
    assert torch.equal(normed.stages[0].norm.weight, torch.ones(8))
    x = torch.rand(1, 3, 64, 64)
    pooled = MaxViT(MAX, head_width=4, pooled=True).eval()
    pooled.load_state_dict(plain.state_dict())
    expected = plain.eval()(x)[-1].mean((2, 3), keepdim=True)
    torch.testing.assert_close(pooled(x)[-1], expected)


def test_errors():
    with pytest.raises(ValueError, match='window_size must be positive'):
        MaxViT(MAX, window_size=0)
    with pytest.raises(ValueError, match='head_width must divide the 8 channels'):
        MaxViT(MAX, head_width=32)
    with pytest.raises(ValueError, match="kinds must be one of C, T, got 'X'"):
        CoAtNet(dict(COAT, kinds=['C', 'C', 'T', 'X']))
    with pytest.raises(ValueError, match='img_size must be positive, got'):
        CoAtNet(COAT, img_size=0)
