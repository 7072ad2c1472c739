"""Layout of EA-AA-ResNet's TensorFlow code."""

import pytest
import torch

from hybrid_mm.backbones import EAAAResNet
from hybrid_mm.convert import convert

ARCH = dict(
    stem=8,
    bottleneck=True,
    depths=[2, 2, 2, 1],
    widths=[8, 16, 16, 32],
    out_channels=[32, 64, 64, 128],
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return EAAAResNet(ARCH, heads=2, canvas_size=(64, 64))


def official(model):
    """Variables in the order in which the published graph makes them."""
    state, counters = {}, {}

    def number(scope, layer):
        index = counters[scope, layer] = counters.get((scope, layer), -1) + 1
        return f'{scope}{layer}' + (f'_{index}' if index else '')

    def conv(module, scope='resnet_model/', kernel=None):
        name = number(scope, 'conv2d')
        kernel = module.weight if kernel is None else kernel
        state[f'{name}/kernel'] = kernel.permute(2, 3, 1, 0)
        return name

    def norm(module):
        name = number('resnet_model/', 'batch_normalization')
        state[f'{name}/gamma'], state[f'{name}/beta'] = module.weight, module.bias
        state[f'{name}/moving_mean'] = module.running_mean
        state[f'{name}/moving_variance'] = module.running_var

    conv(model.stem.conv)
    norm(model.stem.norm)
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            if hasattr(block.shortcut, 'conv'):
                conv(block.shortcut.conv)
                norm(block.shortcut.norm)
            conv(block.conv1)
            norm(block.norm1)
            layer, scope = block.conv2, f'resnet_model/asconv_{i}_{j}_0/'
            if i == 0:
                conv(layer)
            else:
                conv(layer.conv_out, scope)
                parts = [p.split(layer.widths) for p in layer.qkv_conv.parameters()]
                kernel, bias = (torch.cat([k, q, v]) for q, k, v in parts)
                state[f'{conv(None, scope, kernel)}/bias'] = bias
                for part in (layer.evolve, layer.attn_out):
                    if part is not None:
                        state[f'{conv(part, scope)}/bias'] = part.bias
                state[scope + 'r_width'] = layer.relative.rel_w[0]
                state[scope + 'r_height'] = layer.relative.rel_h[0]
            norm(block.norm2)
            conv(block.conv3)
            norm(block.norm3)
    return {key: value.detach().clone() for key, value in state.items()}


def test_round_trip(round_trip):
    def make():
        model = EAAAResNet(ARCH, heads=2, canvas_size=(64, 64))
        for module in model.modules():  # there are no counters in TensorFlow
            if hasattr(module, 'num_batches_tracked'):
                module.num_batches_tracked = None
        return model

    round_trip(make, official, 'tensorflow-ea-aa-resnet', strange='resnet_model/other')


def test_head(model):
    dense = {
        'resnet_model/dense/kernel': torch.rand(128, 5),
        'resnet_model/dense/bias': torch.rand(5),
    }
    out = convert(official(model) | dense)
    assert torch.equal(out['head.weight'], dense['resnet_model/dense/kernel'].t())
    assert torch.equal(out['head.bias'], dense['resnet_model/dense/bias'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s | {'resnet_model/other': torch.ones(1)}, "know the key 'resnet_model/other'"),
        (
            lambda s: s | {'resnet_model/asconv_1_0_0/gain': torch.ones(1)},
            "know the key 'asconv_1_0_0/gain'",
        ),
        (
            lambda s: s | {'resnet_model/conv2d_3/bias': torch.ones(1)},
            "know the key 'resnet_model/conv2d_3/bias'",
        ),
        (
            lambda s: s | {'resnet_model/batch_normalization_99/beta': torch.ones(1)},
            "know the key 'resnet_model/batch_normalization_99/beta'",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != 'resnet_model/conv2d_4/kernel'},
            'convolution number 4 is missing',
        ),
        (
            lambda s: {k: v for k, v in s.items() if 'asconv_1_0_0/conv2d_1/' not in k},
            'asconv_1_0_0/conv2d_1/kernel is missing',
        ),
    ],
)
def test_unknown_and_missing_keys_are_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        convert(change(official(model)))
