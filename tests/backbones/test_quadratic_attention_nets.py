"""The encoder for CIFAR-10, and the ResNet with quadratic attention."""

import pytest
import torch
from torch import nn

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import QuadraticAttentionEncoder, QuadraticAttentionResNet, ResNet
from hybrid_mm.layers import QuadraticAttention2d
from hybrid_mm.layers.attention.quadratic_attention import MODES

SMALL = dict(channels=12, depth=2, heads=3, hidden_channels=16, positions=5)
TINY = dict(
    stem=8, bottleneck=True, depths=[1, 2, 1, 1], widths=[4, 8, 8, 16], out_channels=[8, 12, 16, 20]
)


@pytest.mark.parametrize(
    ('mode', 'parameters'),
    [
        ('isotropic', 12086844),
        ('full', 12087006),
        ('learned', 12278682),
        ('learned_content', 29601882),
    ],
)
def test_parameters_with_ten_classes(mode, parameters):
    with torch.device('meta'):
        model = nn.Sequential(QuadraticAttentionEncoder(mode), nn.Linear(400, 10))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_multiply_adds():
    with torch.device('meta'):
        model = QuadraticAttentionEncoder()
    pixels = 16 * 16
    attention = 9 * 400 * pixels * (16 + 16 + 400)  # rows, columns, mixing
    linear = pixels * (400 * 400 + 2 * 400 * 512)
    assert complexity(model, (32, 32))[1] == pixels * 12 * 400 + 6 * (attention + linear)


@pytest.mark.parametrize('mode', MODES)
def test_any_size_in_mmpretrain(mode):
    MODELS = pytest.importorskip('mmpretrain.registry').MODELS

    model = MODELS.build(dict(type='hybrid_mm.QuadraticAttentionEncoder', mode=mode, **SMALL))
    for size in ((32, 32), (33, 46), (5, 7), (1, 1)):
        (out,) = model(torch.rand(2, 3, *size))
        assert out.shape == (2, 12, -(-size[0] // 2), -(-size[1] // 2))
        assert out.isfinite().all()
        assert out.is_contiguous()


@pytest.mark.parametrize('mode', MODES)
def test_autocast_and_checkpointing(mode):
    torch.manual_seed(0)
    arguments = dict(mode=mode, dropout=0.1, attn_drop=0.1, **SMALL)
    plain, saving = (QuadraticAttentionEncoder(**arguments, with_cp=cp) for cp in (False, True))
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 16, 18)
    for model in (plain, saving):
        torch.manual_seed(1)
        model(x)[0].square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    with torch.no_grad():
        full = plain.eval()(x)[0]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            low = plain(x)[0]
    assert (low.float() - full).norm() < 0.05 * full.norm()


def test_resnet_parameters():
    with torch.device('meta'):
        model = QuadraticAttentionResNet('r50')
        half = QuadraticAttentionResNet('r50', attention=(False, False, True, True))
    # torchvision's, and a centre and a spread for each of nine heads in place of each 3x3
    assert sum(p.numel() for p in model.parameters()) == 23508032 + 16 * 27
    assert sum(p.numel() for p in half.parameters()) == 23508032 + 9 * 27


def test_resnet_starts_as_the_convolution():
    torch.manual_seed(0)
    model = QuadraticAttentionResNet(TINY, alpha=40.0).double().eval()
    plain = ResNet(TINY)
    plain.build()
    plain.double().eval()
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, QuadraticAttention2d):
            conv = plain.get_submodule(name)
            conv.padding_mode = 'replicate'
            conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
            weight = state.pop(f'{name}.value.weight').unflatten(1, (3, 3, -1))
            state[f'{name}.weight'] = weight.permute(0, 3, 1, 2)
            del state[f'{name}.centers'], state[f'{name}.spreads']
    plain.load_state_dict(state)
    x = torch.rand(2, 3, 65, 97, dtype=torch.float64)
    for a, b in zip(model(x), plain(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_resnet_arguments():
    with pytest.raises(ValueError, match='alpha must be positive, got 0'):
        QuadraticAttentionResNet(TINY, alpha=0)
    with pytest.raises(ValueError, match='QuadraticAttentionResNet: attention must have one entry'):
        QuadraticAttentionResNet(TINY, attention=(True, False))
