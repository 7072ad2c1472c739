"""ResNet with ACmix: sizes of the variants, initial values, bad arguments."""

import pytest
import torch

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import ACmixResNet

HEAD = 2048 * 1000 + 1000
# counted on the official code with 1000 classes: parameters, and 1e9 multiply-adds at 224 x 224
OFFICIAL = {
    'r26': (10_487_816, 2.217),
    'r38': (14_410_896, 2.859),
    'r50': (18_333_976, 3.502),
}


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        found = complexity(ACmixResNet(arch), (224, 224))
    parameters, gmac = OFFICIAL[arch]
    assert found[0] + HEAD == parameters
    assert (found[1] + 2048 * 1000) / 1e9 == pytest.approx(gmac, rel=0.01)


def test_initial_values():
    torch.manual_seed(0)
    layer = ACmixResNet('r26').stages[1].blocks[1].conv2
    shifts = torch.eye(9).view(1, 9, 3, 3).expand_as(layer.mix.dep_conv.weight)
    assert torch.equal(layer.mix.dep_conv.weight, shifts)
    assert layer.qkv.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    layer = ACmixResNet('r26', shift_init=False).stages[0].blocks[0].conv2
    assert layer.mix.dep_conv.weight.std().item() == pytest.approx(
        0.0588, rel=0.05
    )  # the official one


def test_chosen_stages_and_windows():
    net = ACmixResNet('r26', acmix=(False, True, True, True), kernel_att=(7, 7, 5, 3))
    assert isinstance(net.stages[0].blocks[0].conv2, torch.nn.Conv2d)
    assert [s.blocks[0].conv2.kernel_att for s in net.stages[1:]] == [7, 5, 3]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(heads=3), 'heads must divide the 64 output channels, got 3'),
        (dict(kernel_att=6), 'kernel_att must be odd and positive, got 6'),
        (dict(kernel_conv=2), 'kernel_conv must be odd and positive, got 2'),
        (dict(heads=(4, 4)), 'ACmixResNet: heads must have one entry for each of the 4 stages'),
        (dict(impl='natten'), 'impl must be one of auto, reference'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ACmixResNet('r26', **kwargs)
