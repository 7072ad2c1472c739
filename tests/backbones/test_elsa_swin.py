"""ELSA-Swin: sizes of the variants, widths, windows of the last stage, bad arguments."""

import pytest
import torch

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import ELSASwin
from hybrid_mm.convert import convert, detect

# counted on the official code: dense, classifier of 1000 classes, and 1e9 multiply-adds at
# 224 x 224 without the sum over the taps
OFFICIAL = {
    'tiny': (28_373_322, 29_140_978, 4.64),
    'small': (52_106_970, 52_874_626, 9.34),
    'base': (91_659_256, 92_682_464, 16.37),
}
ARCH = dict(embed_dim=12, depths=[1, 1, 1, 2], heads=[1, 2, 2, 4], group_width=4)


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        dense, classifier = ELSASwin(arch), ELSASwin(arch, out_indices=(3,))
        parameters, macs = complexity(classifier, (224, 224))
    width = classifier.out_channels[0]
    assert complexity(dense, (224, 224))[0] == OFFICIAL[arch][0]
    assert parameters + 1000 * width + 1000 == OFFICIAL[arch][1]
    taps = sum(
        49 * depth * channels * (56 // 2**stage) ** 2
        for stage, (depth, channels) in enumerate(
            zip(dense.depths[:-1], dense.stage_channels, strict=False)
        )
    )
    static = taps  # the summands of the ghost head are a convolution here
    total = (macs - taps - static + 1000 * width) / 1e9
    assert total == pytest.approx(OFFICIAL[arch][2], rel=0.01)


def test_widths_of_queries_and_keys():
    with torch.device('meta'):
        net = ELSASwin('base')
    assert [s.blocks[0].attn.qk_dim for s in net.stages[:3]] == [88, 176, 344]


def test_last_stage_shifts_small_maps_on_demand():
    x = torch.randn(1, 3, 64, 96)
    maps = []
    for always in (True, False):
        torch.manual_seed(0)
        maps.append(ELSASwin(ARCH, always_shift=always).eval()(x))
    for a, b in zip(maps[0][:3], maps[1][:3], strict=True):
        assert torch.equal(a, b)
    # rows 0 and 1 of a window of 7 shifted by 3 see neither columns beyond
    assert not torch.equal(maps[0][3], maps[1][3])


def test_official_layout_by_hand():
    q, k, v = torch.randn(3, 8, 8).unbind()
    state = {
        'layers.0.blocks.0.attn.ghost_head': torch.randn(2, 1, 8, 5, 5),
        'layers.0.blocks.0.attn.post_proj.bias': torch.zeros(8),
        'layers.3.blocks.1.attn.pre_proj.weight': torch.cat([v, q, k]),
        'layers.3.blocks.1.attn.rb': torch.arange(18.0).view(2, 9),
        'layers.3.blocks.1.attn.relative_id': torch.zeros(16, dtype=torch.long),
        'layers.3.blocks.1.attn.post_proj.bias': torch.ones(8),
    }
    assert detect(state) == 'elsa-swin'
    found = convert(state)
    head = found['stages.0.blocks.0.attn.ghost_head']
    assert torch.equal(head, state['layers.0.blocks.0.attn.ghost_head'][:, 0])
    assert 'stages.0.blocks.0.attn.post_proj.bias' in found
    last = 'stages.3.blocks.1.attn.'
    assert torch.equal(found[f'{last}qkv.weight'], torch.cat([q, k, v]))
    assert torch.equal(found[f'{last}relative_bias'][1], torch.arange(9.0, 18).view(3, 3))
    assert f'{last}proj.bias' in found
    assert len(found) == 5
    with pytest.raises(ValueError, match=r'elsa-swin: do not know the key .*attn.fc.weight'):
        convert({**state, 'layers.0.blocks.0.attn.fc.weight': torch.zeros(1)})


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='large'), "ELSASwin has no arch 'large'"),
        (dict(kernel_size=6), 'kernel_size must be odd and positive, got 6'),
        (dict(window_size=0), 'ELSASwin: window_size must be positive, got 0'),
        (
            dict(impl='cuda'),
            'impl must be one of auto, reference, tiled, triton for ghost_attention',
        ),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ELSASwin(**{'arch': ARCH, **kwargs})
