"""What is VAN's own; what holds for every backbone is in test_all.py."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import VAN

# Parameters without classifier: the official classification code less its head
PARAMETERS = {'b0': 3848800, 'b1': 13348800, 'b2': 26065472, 'b3': 44252608, 'b4': 59770176,
              'b5': 89198688, 'b6': 199060416}  # fmt: skip

# Classifiers with 1000 classes, kernel sizes 7, 11, 23, 35, 53, 65
KERNELS = (7, 11, 23, 35, 53, 65)
CLASSIFIERS = {
    ('tiny', 'lka_trivial'): (4064200, 4179400, 4832200, 5945800, 8480200, 10745800),
    ('tiny', 'lska_trivial'): (4009800, 4022600, 4061000, 4099400, 4157000, 4195400),
    ('tiny', 'lka'): (4016200, 4041800, 4105800, 4221000, 4489800, 4733000),
    ('tiny', 'lska'): (4009800, 4016200, 4029000, 4041800, 4061000, 4073800),
    ('small', 'lka_trivial'): (13791912, 13985448, 15082152, 16953000, 21210792, 25017000),
    ('small', 'lska_trivial'): (13700520, 13722024, 13786536, 13851048, 13947816, 14012328),
    ('small', 'lka'): (13711272, 13754280, 13861800, 14055336, 14506920, 14915496),
    ('small', 'lska'): (13700520, 13711272, 13732776, 13754280, 13786536, 13808040),
    ('base', 'lka_trivial'): (26423720, 26852264, 29280680, 33423272, 42851240, 51279272),
    ('base', 'lska_trivial'): (26221352, 26268968, 26411816, 26554664, 26768936, 26911784),
    ('base', 'lka'): (26245160, 26340392, 26578472, 27007016, 28006952, 28911656),
    ('base', 'lska'): (26221352, 26245160, 26292776, 26340392, 26411816, 26459432),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameters(arch):
    with torch.device('meta'):
        assert count(VAN(arch)) == PARAMETERS[arch]


@pytest.mark.parametrize(('arch', 'attention'), CLASSIFIERS)
def test_parameters_of_every_operator_and_kernel(arch, attention):
    head = 1000 * VAN.arch_zoo[VAN.arch_aliases[arch]].embed_dims[-1] + 1000
    with torch.device('meta'):
        found = [count(VAN(arch, attention, kernel_size=k)) + head for k in KERNELS]
    assert tuple(found) == CLASSIFIERS[arch, attention]


def test_stage_output_is_the_normed_input_of_the_next_stage():
    model = VAN(dict(embed_dims=[4, 6], depths=[1, 1], mlp_ratios=[2, 2]), out_indices=(0, 1))
    x = torch.rand(1, 3, 40, 33)
    first, second = model.eval()(x)
    torch.testing.assert_close(model.stages[1](first), second)
    torch.testing.assert_close(first.mean(1), torch.zeros(1, 10, 9), atol=1e-5, rtol=0)


def test_initial_values():
    torch.manual_seed(0)
    model = VAN('b1', attention='lska')
    block = model.stages[2].blocks[0]
    for conv in (block.mlp.fc1, block.mlp.dwconv, block.attn.lka.dilated_v):
        kh, kw = conv.kernel_size
        std = (2 / (kh * kw * conv.out_channels / conv.groups)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(std, rel=0.1)
        assert conv.bias.abs().max() == 0
    assert block.layer_scale_1.unique().tolist() == [pytest.approx(1e-2)]


def test_norm_cfg_and_eps():
    model = VAN('b0', norm_cfg=dict(type='SyncBN', requires_grad=False), ln_eps=1e-6)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 4 + 2 * 13
    assert all(isinstance(m, nn.SyncBatchNorm) and not m.weight.requires_grad for m in norms)
    assert all(stage.norm.eps == 1e-6 for stage in model.stages)
    with pytest.raises(ValueError, match=r"norm_cfg type must be one of .*got 'LN'"):
        VAN('b0', norm_cfg=dict(type='LN'))


def test_drop_path_grows_linearly_over_all_blocks():
    model = VAN('b0', drop_path_rate=0.24)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.02 * i for i in range(13)])


def test_even_kernel_with_a_dilation():
    """Of LKA the dilated kernel has to be odd, floor(24 / 8), not the nominal size."""
    arch = dict(embed_dims=[8], depths=[1], mlp_ratios=[1])
    attn = VAN(arch, kernel_size=24, dilation=8, out_indices=(0,)).stages[0].blocks[0].attn
    sizes = {conv.kernel_size for conv in attn.modules() if isinstance(conv, nn.Conv2d)}
    assert sizes == {(15, 15), (3, 3), (1, 1)}
    with pytest.raises(ValueError, match=r'kernel_size=24 has no default dilation: use one of \[7'):
        VAN(arch, kernel_size=24, out_indices=(0,))
    with pytest.raises(ValueError, match='kernel_size must be odd and positive, got 24'):
        VAN(arch, 'lka_trivial', kernel_size=24, out_indices=(0,))
