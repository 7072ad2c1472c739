"""CvT: sizes of the variants, its attention step by step, class token, heads of the maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import CvT
from hybrid_mm.backbones.cvt import QuickGELUMLP
from hybrid_mm.layers.attention.convolutional_projection import ConvolutionalProjectionAttention

TINY = dict(
    depths=[1, 1],
    embed_dims=[8, 12],
    heads=[1, 2],
    mlp_ratios=[2, 2],
    patch_sizes=[7, 3],
    patch_strides=[4, 2],
    patch_paddings=[2, 1],
)
# counted on the official code with 1000 classes; 1e9 multiply-adds at 224 in the paper
OFFICIAL = {'13': (19_997_480, 4.5), '21': (31_622_696, 7.1), 'w24': (277_196_392, None)}


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        model = CvT(arch, pooled=True, out_indices=(2,))
        parameters, macs = complexity(model, (224, 224))
    width = model.out_channels[-1]
    expected, gmac = OFFICIAL[arch]
    assert parameters + width * 1000 + 1000 == expected
    if gmac:
        assert macs / 1e9 == pytest.approx(gmac, rel=0.02)


def drawn(module):
    """Random weights and statistics of norms."""
    torch.manual_seed(0)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5) if name.endswith('var') else tensor.normal_(0, 0.4)
    return module.double()


def normed(norm, x):
    """Batch norm written out: torch's has wrong gradients here, see docs/contributing.md."""
    mean, var = norm.running_mean, norm.running_var
    if norm.training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    mean, var, weight, bias = (t[:, None, None] for t in (mean, var, norm.weight, norm.bias))
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


def reference(layer, x, size):
    """The attention written out: convolutions, projections and softmax of one head at a time."""
    n, length, dim = x.shape
    extra = length - size[0] * size[1]
    maps = x[:, extra:].transpose(1, 2).reshape(n, dim, *size)
    tokens = {}
    for name in 'qkv':
        y = maps
        if layer.method == 'dw_bn':
            part = getattr(layer, f'conv_{name}')
            stride = 1 if name == 'q' else layer.kv_stride
            y = F.conv2d(y, part.conv.weight, None, stride, layer.kernel_size // 2, groups=dim)
            y = normed(part.norm, y)
        elif layer.method == 'avg' and name != 'q':
            kernel = layer.kernel_size
            y = nn.AvgPool2d(kernel, layer.kv_stride, kernel // 2, ceil_mode=True)(y)
        y = torch.cat([x[:, :extra], y.flatten(2).transpose(1, 2)], 1)
        tokens[name] = getattr(layer, name)(y)
    width = dim // layer.heads
    outs = []
    for head in range(layer.heads):
        q, k, v = (tokens[name][..., head * width : (head + 1) * width] for name in 'qkv')
        outs.append((q @ k.transpose(1, 2) / dim**0.5).softmax(-1) @ v)
    return layer.proj(torch.cat(outs, -1))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(
    ('method', 'kernel', 'stride', 'extra', 'images'),
    [('dw_bn', 3, 2, 0, 2), ('dw_bn', 5, 1, 1, 1), ('dw_bn', 3, 2, 1, 1), ('avg', 3, 2, 1, 2),
     ('linear', 3, 2, 0, 1)],
)  # fmt: skip
def test_attention_step_by_step(method, kernel, stride, extra, images, training):
    size = 5, 6
    layer = drawn(ConvolutionalProjectionAttention(12, 3, method, kernel, stride)).train(training)
    x = torch.randn(images, extra + 30, 12, dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    variables = [x, *layer.parameters()]
    expected = reference(layer, x, size)
    found = layer(x, size)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, variables, dy),
        torch.autograd.grad(expected, variables, dy),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_attention_weights_are_not_kept():
    """What is saved for the backward pass grows with the number of pixels, not with its square."""
    layer = ConvolutionalProjectionAttention(16, 2).eval()
    sizes = {}
    for side in (16, 48):
        kept = {}

        def pack(t, kept=kept):
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            y = layer(torch.randn(1, side * side, 16, requires_grad=True), (side, side))
        sizes[side] = sum(kept.values())
        del y
    assert sizes[48] < 9.5 * sizes[16]


def test_quick_gelu():
    mlp = drawn(QuickGELUMLP(5, 7))
    x = torch.randn(3, 5, dtype=torch.float64)
    hidden = mlp.fc1(x)
    torch.testing.assert_close(mlp(x), mlp.fc2(hidden * torch.sigmoid(1.702 * hidden)))


def test_norm_in_eval_mode_is_part_of_the_layer():
    """Nothing but the input of the convolution is kept, and folding for good changes nothing."""
    layer = drawn(ConvolutionalProjectionAttention(8, 1)).conv_k
    x = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    layer.train()(x)
    layer.eval()
    expected = layer.norm(layer.conv(x))
    torch.testing.assert_close(layer(x), expected)
    layer.switch_to_deploy()
    layer.switch_to_deploy()
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.train()(x), expected)


def test_class_token():
    torch.manual_seed(0)
    with_token, without = (CvT(TINY, t, out_indices=(0, 1)).eval() for t in (True, False))
    state = with_token.state_dict()
    token = state.pop('stages.1.embed.class_token')
    without.load_state_dict(state)
    x = torch.rand(2, 3, 40, 56)
    first, second = with_token(x), without(x)
    assert token.abs().max() > 0
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    for model in (with_token, without):
        pooled = CvT(TINY, model is with_token, pooled=True, out_indices=(1,)).eval()
        pooled.load_state_dict(model.state_dict(), strict=False)
        assert pooled(x)[0].shape == (2, 12)
    torch.testing.assert_close(  # without the token: the mean of what the norm leaves
        pooled(x)[0], pooled.stages[1].norm(second[1].permute(0, 2, 3, 1)).mean((1, 2))
    )


@pytest.mark.parametrize('norm_outputs', [False, True])
def test_classifier_into_a_dense_network(norm_outputs, tmp_path):
    source = CvT(TINY, pooled=True, out_indices=(1,))
    nn.init.normal_(source.stages[1].norm.weight)
    head = {'head.weight': torch.ones(5, 12), 'head.bias': torch.ones(5)}
    torch.save(source.state_dict() | head, tmp_path / 'cls.pth')
    dense = CvT(TINY, norm_outputs=norm_outputs, out_indices=(0, 1))
    dense.load_pretrained(str(tmp_path / 'cls.pth'))
    assert torch.equal(
        dense.stages[1].blocks[0].attn.q.weight, source.stages[1].blocks[0].attn.q.weight
    )
    if norm_outputs:
        assert torch.equal(dense.stages[1].norm.weight, source.stages[1].norm.weight)
        assert torch.equal(dense.stages[0].norm.weight, torch.ones(8))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='cvt-14'), "CvT has no arch 'cvt-14': did you mean 'cvt-"),
        (dict(arch=dict(TINY, heads=[3, 2])), 'heads must divide the 8 channels, got 3'),
        (dict(projection='conv'), "projection must be one of dw_bn, avg, linear, got 'conv'"),
        (dict(kernel_size=4), 'CvT: kernel_size must be odd and positive, got'),
        (dict(kv_stride=[2, 2]), 'CvT: kv_stride must have one entry for each of the 3 stages'),
        (dict(pooled=True), r'out_indices must be \(2,\), got \(0, 1, 2\)'),
        (dict(drop_path_rate=1.0), r'drop_path_rate must lie in \[0, 1\)'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CvT(**kwargs)


def test_drop_path_grows_within_the_last_stage():
    model = CvT('13', drop_path_rate=0.1)
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.stages]
    assert rates[:2] == [[0.0], [0.0, 0.0]]
    assert rates[2] == pytest.approx([0.1 * i / 9 for i in range(10)])
