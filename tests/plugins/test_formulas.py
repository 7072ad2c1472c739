"""Every plugin against the formula of its paper, and its initial values and norms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.layers import LocalSelfAttention2d
from hybrid_mm.ops.lambda_attention import lambda_attention
from hybrid_mm.plugins import (
    BAM,
    CBAM,
    ECA,
    SE,
    ACmix,
    ContextBlock,
    CoordinateAttention,
    GatherExcite,
    LambdaLayer,
    NonLocal2d,
    SASAConv2d,
    SelectiveKernel,
    SimplifiedNonLocal,
    TripletAttention,
)
from hybrid_mm.plugins.base import apply_norm
from hybrid_mm.plugins.spatial_gate import SpatialGate


def drawn(module, training=False):
    """Parameters and statistics of which none is zero or one."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return module.double().train(training)


def random_maps(channels=16, size=(6, 9), images=2):
    return torch.randn(images, channels, *size, dtype=torch.float64)


def normed(norm, x):
    """Batch norm in evaluation, over the second axis."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, weight, bias = (
        t.view(shape) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


# -- gates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('identity', [False, True])
@pytest.mark.parametrize('act, gate', [('relu', 'sigmoid'), ('silu', 'hard_sigmoid')])
def test_se(act, gate, identity):
    module, x = drawn(SE(16, 4, act=act, gate=gate, init_identity=identity)), random_maps()
    hidden = module.fc1(x.mean((2, 3), keepdim=True))
    hidden = hidden.clamp(min=0) if act == 'relu' else hidden / (1 + (-hidden).exp())
    s = module.fc2(hidden)
    factor = 1 / (1 + (-s).exp()) if gate == 'sigmoid' else (s / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(module(x), x * factor * (2 if identity else 1))


@pytest.mark.parametrize(
    'channels, kwargs, hidden',
    [
        (188, {}, 8),  # 11.75 to the nearest multiple of 8, as timm's
        (256, {}, 16),
        (188, dict(divisor=1), 12),
        (64, dict(ratio=4), 16),
        (64, dict(hidden_channels=5), 5),
    ],
)
def test_hidden_width_of_se(channels, kwargs, hidden):
    module = SE(channels, **kwargs)
    assert module.fc1.out_channels == module.fc2.in_channels == hidden
    assert module.fc1.bias is not None and SE(64, bias=False).fc2.bias is None


@pytest.mark.parametrize(
    'channels, size', [(8, 3), (16, 3), (64, 3), (90, 3), (128, 5), (256, 5), (1024, 5), (2048, 7)]
)
def test_eca(channels, size):
    """Equation 12 of the paper: the odd number nearest to (log2(C) + 1) / 2."""
    module, x = drawn(ECA(channels)), random_maps(channels, (2, 3))
    assert module.conv.weight.shape == (1, 1, size)
    mean = F.pad(x.mean((2, 3)), (size // 2, size // 2))
    moved = sum(module.conv.weight[0, 0, i] * mean[:, i : i + channels] for i in range(size))
    torch.testing.assert_close(module(x), x * torch.sigmoid(moved)[:, :, None, None])


def spatial_gate(gate, x):
    """Maximum first, then mean, as the published weights have it."""
    pooled = torch.stack([x.max(1).values, x.mean(1)], 1)
    half = gate.conv.weight.shape[-1] // 2
    return torch.sigmoid(normed(gate.norm, F.conv2d(pooled, gate.conv.weight, padding=half)))


@pytest.mark.parametrize('kernel', [1, 7])
def test_gate_over_positions(kernel):
    gate, x = drawn(SpatialGate(kernel, nn.BatchNorm2d(1), gain=2.0)), random_maps()
    assert gate(x).shape == (2, 1, 6, 9)
    torch.testing.assert_close(gate(x), 2 * spatial_gate(gate, x))


@pytest.mark.parametrize('pools', [('avg', 'max'), ('lp', 'lse')])
def test_cbam(pools):
    module, x = drawn(CBAM(16, 4, pools)), random_maps()
    gate = module.channel_gate
    pooled = {
        'avg': x.mean((2, 3)),
        'max': x.flatten(2).max(2).values,
        'lp': x.square().sum((2, 3)).sqrt(),
        'lse': x.exp().sum((2, 3)).log(),
    }
    s = sum(gate.fc2(gate.fc1(pooled[name]).clamp(min=0)) for name in pools)
    y = x * torch.sigmoid(s)[:, :, None, None]
    expected = y * spatial_gate(module.spatial_gate, y)
    torch.testing.assert_close(module(x), expected)
    module.spatial_gate = None
    torch.testing.assert_close(module(x), y)


def test_triplet():
    """Gates over (C, W), (H, C) and (H, W), each from the maximum and the mean of the third."""
    module, x = drawn(TripletAttention(16, kernel_size=5)), random_maps(8, (6, 9))
    cw = spatial_gate(module.cw, x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
    hc = spatial_gate(module.hc, x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
    hw = spatial_gate(module.hw, x)
    torch.testing.assert_close(module(x), (x * cw + x * hc + x * hw) / 3)
    module.hw = None
    torch.testing.assert_close(module(x), (x * cw + x * hc) / 2)


@pytest.mark.parametrize('identity', [False, True])
def test_bam(identity):
    """The product of the two branches, as in the official code, not the sum of the paper."""
    module = drawn(BAM(16, 4, channel_layers=2, dilation=2, init_identity=identity))
    x = random_maps()
    c = x.mean((2, 3))
    for fc, norm in zip(module.channel_fcs, module.channel_norms, strict=True):
        c = normed(norm, fc(c)).clamp(min=0)
    s = x
    for i, (conv, norm) in enumerate(zip(module.spatial_convs, module.spatial_norms, strict=True)):
        reach = dict(padding=2, dilation=2) if i else {}
        s = normed(norm, F.conv2d(s, conv.weight, conv.bias, **reach)).clamp(min=0)
    product = module.channel_out(c)[:, :, None, None] * module.spatial_out(s)
    a = torch.sigmoid(product)
    torch.testing.assert_close(module(x), x * (2 * a if identity else 1 + a))
    assert len(module.spatial_convs) == 3


def test_coordinate():
    """Hard swish after the norm; the gates of rows and of columns are multiplied."""
    module, x = drawn(CoordinateAttention(16, min_channels=5)), random_maps()
    assert module.conv1.out_channels == 5
    gate = 1
    for dim, conv in ((3, module.conv_h), (2, module.conv_w)):
        y = normed(module.norm, module.conv1(x.mean(dim, keepdim=True)))
        y = conv(y * (y + 3).clamp(0, 6) / 6)
        gate = gate * torch.sigmoid(y)
    torch.testing.assert_close(module(x), x * gate)
    assert CoordinateAttention(512).conv1.out_channels == 16
    assert CoordinateAttention(64).conv1.out_channels == 8


# -- gather-excite ---------------------------------------------------------------------------------


def nearest(y, size):
    """Resizing in which pixel i of the result takes pixel floor(i in / out)."""
    for dim, side in ((2, size[0]), (3, size[1])):
        y = y.index_select(dim, torch.arange(side) * y.shape[dim] // side)
    return y


def test_gather_excite_by_means():
    """Means over 2 e - 1 pixels around every e-th, of those within the map."""
    x = random_maps(4, (7, 10))
    for extent in (2, 4):
        rows = []
        for i in range(0, 7, extent):
            columns = []
            for j in range(0, 10, extent):
                top, left = max(i - extent + 1, 0), max(j - extent + 1, 0)
                columns.append(x[:, :, top : i + extent, left : j + extent].mean((2, 3)))
            rows.append(torch.stack(columns, -1))
        gate = torch.sigmoid(nearest(torch.stack(rows, 2), (7, 10)))
        module = GatherExcite(4, extent, learned=False).double()
        torch.testing.assert_close(module(x), x * gate)
    whole = GatherExcite(4, 0, learned=False).double()
    torch.testing.assert_close(whole(x), x * torch.sigmoid(x.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize('mlp', [False, True])
def test_gather_excite_by_convolutions(mlp):
    module, x = drawn(GatherExcite(16, 4, mlp=mlp, hidden_channels=6, act='silu')), random_maps()
    assert len(module.convs) == 2
    y = normed(module.norms[0], F.conv2d(x, module.convs[0].weight, None, 2, 1, groups=16))
    y = F.conv2d(F.silu(y), module.convs[1].weight, None, 2, 1, groups=16)
    y = normed(module.norms[1], y)
    if mlp:
        y = module.mlp['fc2'](F.silu(module.mlp['fc1'](y)))
    expected = x * torch.sigmoid(nearest(y, x.shape[2:]))
    torch.testing.assert_close(module(x), expected)
    assert GatherExcite(160, mlp=True).mlp['fc1'].out_channels == 10


@pytest.mark.parametrize('size, padded, gathered', [
    ((8, 6), False, (1, 1)), ((8, 6), True, (7, 5)), ((7, 5), True, (7, 5)),
    ((7, 7), False, (1, 1)),
])  # fmt: skip
def test_gather_excite_over_the_whole_map(size, padded, gathered):
    """With timm's padding an even side shrinks by one."""
    module = drawn(GatherExcite(4, 0, map_size=size, padded=padded))
    x = random_maps(4, size)
    y = module.gather(x)
    assert y.shape[2:] == gathered
    padding = [(k - 1) // 2 if padded else 0 for k in size]
    expected = normed(module.norms[0], F.conv2d(x, module.convs[0].weight, None, 1, padding, 1, 4))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(module(x), x * torch.sigmoid(nearest(expected, size)))


# -- global context --------------------------------------------------------------------------------


def test_context_and_its_simplified_form():
    module, x = drawn(SimplifiedNonLocal(8)), random_maps(8)
    weights = module.conv_mask(x).flatten(2).softmax(2)
    context = (x.flatten(2) * weights).sum(2)[..., None, None]
    torch.testing.assert_close(module(x), x + module.channel_add_conv(context))
    both = drawn(ContextBlock(8, 1 / 2, fusion_types=('channel_add', 'channel_mul')))
    weights = both.conv_mask(x).flatten(2).softmax(2)
    context = (x.flatten(2) * weights).sum(2)[..., None, None]
    gate = torch.sigmoid(both.channel_mul_conv(context))
    torch.testing.assert_close(both(x), x * gate + both.channel_add_conv(context))


# -- in the place of 3x3 convolutions --------------------------------------------------------------


@pytest.mark.parametrize('kwargs', [
    dict(), dict(dilation=2), dict(stride=2, groups=4), dict(dilated=False, kernel_sizes=(3, 7)),
    dict(kernel_sizes=(3, 5, 7), dilation=3), dict(split_input=True, groups=2),
], ids=str)  # fmt: skip
def test_selective_kernel(kwargs):
    """Equations 1 to 6; branch of size k has dilation (k - 1) / 2 times that of the stage."""
    module, x = drawn(SelectiveKernel(16, 12, **kwargs)), random_maps(16, (9, 11))
    dilation, sizes = kwargs.get('dilation', 1), kwargs.get('kernel_sizes', (3, 5))
    parts = x.chunk(len(sizes), 1) if kwargs.get('split_input') else [x] * len(sizes)
    maps = []
    for size, path, part in zip(sizes, module.paths, parts, strict=True):
        step = dilation if kwargs.get('dilated') is False else dilation * (size - 1) // 2
        kernel = size if kwargs.get('dilated') is False else 3
        assert path['conv'].weight.shape[2:] == (kernel, kernel)
        y = F.conv2d(
            part,
            path['conv'].weight,
            None,
            kwargs.get('stride', 1),
            step * (kernel // 2),
            step,
            kwargs.get('groups', 1),
        )
        maps.append(normed(path['norm'], y).clamp(min=0))
    mean = sum(maps).mean((2, 3), keepdim=True)
    z = module.select(normed(module.norm, module.reduce(mean)).clamp(min=0))
    weights = z.view(2, len(sizes), 12, 1, 1).softmax(1)
    expected = sum(weights[:, i] * y for i, y in enumerate(maps))
    torch.testing.assert_close(module(x), expected)


def test_hidden_width_of_selective_kernels():
    widths = {
        SelectiveKernel(c, c, **k).reduce.out_channels: (c, k)
        for c, k in (
            (64, {}),
            (640, {}),
            (192, dict(min_channels=8)),
            (64, dict(hidden_channels=5)),
        )
    }
    assert sorted(widths) == [5, 16, 32, 40]


@pytest.mark.parametrize('kwargs', [
    dict(), dict(dilation=2, window=(3, 5)), dict(stride=2, num_heads=2, position_bias=False),
    dict(key_channels=None, qk_ratio=0.5),
], ids=str)  # fmt: skip
def test_lambda_layer(kwargs):
    module = drawn(LambdaLayer(8, 16, **{'window': 5, 'key_channels': 3, **kwargs}))
    x, heads = random_maps(8, (7, 9)), kwargs.get('num_heads', 4)
    keys = 2 if 'qk_ratio' in kwargs else 3
    q, k, v = module.qkv(x).split([heads * keys, keys, 16 // heads], 1)
    q, v = normed(module.norm_q, q), normed(module.norm_v, v)
    expected = lambda_attention(
        q, k, v, module.position.weight, module.position.bias, kwargs.get('dilation', 1)
    )
    assert (module.position.bias is None) == ('position_bias' in kwargs)
    if kwargs.get('stride') == 2:
        columns = [slice(j, j + 2) for j in range(0, 9, 2)]
        expected = torch.stack(
            [
                torch.stack([expected[:, :, i : i + 2, s].mean((2, 3)) for s in columns], -1)
                for i in range(0, 7, 2)
            ],
            2,
        )
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (1, 2)])
def test_stand_alone_attention_for_a_convolution(stride, dilation):
    """Stride and dilation of the convolution go to the attention; a bias is added at the end."""
    module = drawn(SASAConv2d(6, 8, 3, stride, dilation, dilation, window=5, heads=2))
    plain = LocalSelfAttention2d(6, 8, 5, 2, stride, dilation).double()
    missing = plain.load_state_dict(module.state_dict(), strict=False)
    assert missing.unexpected_keys == ['bias']
    # what the library reads of a convolution
    assert (module.padding, module.stride, module.dilation) == (2 * dilation, stride, dilation)
    assert (module.in_channels, module.out_channels, module.groups) == (6, 8, 1)
    x = random_maps(6, (9, 11))
    torch.testing.assert_close(module(x), plain(x) + module.bias.view(-1, 1, 1))
    fresh = SASAConv2d(6, 16, 3, padding=1)
    assert not fresh.bias.any() and SASAConv2d(6, 16, 3, padding=1, bias=False).bias is None
    assert (fresh.kernel_size, fresh.heads) == (7, 8)
    given = SASAConv2d(6, 8, 3, padding=1, heads=2, border='mask', scale=0.5)
    assert (given.border, given.scale) == ('mask', 0.5)
    lateral = SASAConv2d(6, 8, 1, 2, bias=False, heads=4)
    assert type(lateral) is nn.Conv2d and lateral.stride == (2, 2) and lateral.bias is None


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(kernel_size=(3, 5)), r'same kernel_size in both directions, got \(3, 5\)'),
        (dict(padding=0), 'padding 1 .*, got groups 1, padding 0'),
        (dict(groups=2), 'got groups 2, padding 1'),
        (dict(stride=(1, 2)), r'same stride in both directions, got \(1, 2\)'),
        (dict(dilation=2), 'padding 2 .*dilation 2'),
        (dict(heads=3), 'heads must divide the 8 output channels, got 3'),
    ],
)
def test_convolutions_that_attention_cannot_replace(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SASAConv2d(**{**dict(in_channels=4, out_channels=8, kernel_size=3, padding=1), **kwargs})


# -- initial values and norms ----------------------------------------------------------------------


def he(out_channels, kernel=1):
    return (2 / (out_channels * kernel**2)) ** 0.5


def uniform(fan_in):
    """What torch gives its layers."""
    return (3 * fan_in) ** -0.5


# what is made, and {parameter: standard deviation, or the number that it is full of as a str}
INITIAL = {
    'SE': (lambda: SE(256), {'fc1.weight': uniform(256), 'fc2.weight': uniform(16)}),
    'SE, identity': (lambda: SE(64, init_identity=True), {'fc2.weight': '0', 'fc2.bias': '0'}),
    'CBAM': (
        lambda: CBAM(128),
        {'channel_gate.fc1.weight': uniform(128), 'spatial_gate.norm.weight': '0',
         'spatial_gate.norm.bias': '0'}),
    'CBAM, identity': (
        lambda: CBAM(64, init_identity=True),
        {'channel_gate.fc2.weight': '0', 'channel_gate.fc2.bias': '0',
         'spatial_gate.norm.weight': '0'}),
    'BAM': (
        lambda: BAM(256),
        {'channel_out.weight': uniform(16), 'spatial_convs.1.weight': uniform(9 * 16),
         'channel_norms.0.weight': '1', 'spatial_norms.2.weight': '1'}),
    'BAM, identity': (
        lambda: BAM(64, init_identity=True), {'channel_out.weight': '0', 'channel_out.bias': '0'}),
    'ECA, identity': (lambda: ECA(64, init_identity=True), {'conv.weight': '0'}),
    'GatherExcite': (
        lambda: GatherExcite(64), {'convs.1.weight': uniform(9), 'norms.1.weight': '1'}),
    'GatherExcite, identity': (
        lambda: GatherExcite(64, init_identity=True),
        {'norms.0.weight': '1', 'norms.1.weight': '0', 'norms.1.bias': '0'}),
    'GatherExcite with MLP, identity': (
        lambda: GatherExcite(64, mlp=True, init_identity=True),
        {'norms.1.weight': '1', 'mlp.fc2.weight': '0', 'mlp.fc2.bias': '0'}),
    'TripletAttention': (
        lambda: TripletAttention(8), {'cw.norm.weight': '1', 'hw.norm.weight': '1'}),
    'TripletAttention, identity': (
        lambda: TripletAttention(8, init_identity=True),
        {'cw.norm.weight': '0', 'hc.norm.weight': '0', 'hw.norm.weight': '0'}),
    'CoordinateAttention': (
        lambda: CoordinateAttention(256),
        {'conv1.weight': uniform(256), 'conv_h.weight': uniform(8), 'norm.weight': '1'}),
    'CoordinateAttention, identity': (
        lambda: CoordinateAttention(64, init_identity=True),
        {'conv_h.weight': '0', 'conv_h.bias': '0', 'conv_w.weight': '0', 'conv_w.bias': '0'}),
    'ContextBlock': (
        lambda: ContextBlock(128, 1 / 4),
        {'channel_add_conv.0.weight': uniform(128), 'channel_add_conv.3.weight': '0',
         'channel_add_conv.3.bias': '0', 'conv_mask.bias': '0'}),
    'SimplifiedNonLocal': (
        lambda: SimplifiedNonLocal(64),
        {'channel_add_conv.weight': '0', 'channel_add_conv.bias': '0'}),
    'NonLocal2d': (
        lambda: NonLocal2d(64),
        {'theta.conv.weight': 0.01, 'phi.conv.weight': 0.01, 'g.conv.weight': 0.01,
         'conv_out.conv.weight': '0'}),
    'NonLocal2d of a spread': (
        lambda: NonLocal2d(64, 0.3, False), {'g.conv.weight': 0.3, 'conv_out.conv.weight': 0.3}),
    'SelectiveKernel': (
        lambda: SelectiveKernel(64, 64, groups=4),
        {'paths.0.conv.weight': he(64, 3), 'paths.1.conv.weight': he(64, 3),
         'reduce.weight': uniform(64), 'select.weight': uniform(32), 'paths.1.norm.weight': '1'}),
    'LambdaLayer': (
        lambda: LambdaLayer(64, key_channels=16),
        {'qkv.weight': 1 / 8, 'position.weight': 1 / 4, 'norm_q.weight': '1'}),
    'ACmix': (
        lambda: ACmix(32, 256),
        {'operator.qkv.weight': he(256), 'operator.mix.fc.weight': he(9),
         'operator.position.weight': he(64), 'operator.rate1': '0.5', 'operator.rate2': '0.5'}),
    'ACmix without shifts': (
        lambda: ACmix(32, 64, shift_init=False),
        {'operator.mix.dep_conv.weight': he(64, 3), 'operator.rate1': '0.5'}),
    'SASAConv2d': (
        lambda: SASAConv2d(32, 512, 3, padding=1, heads=2),
        {'query_conv.weight': he(512), 'rel_h': 1 / 16, 'bias': '0'}),
}  # fmt: skip


@pytest.mark.parametrize('reset', [False, True], ids=['as made', 'inside of a network'])
@pytest.mark.parametrize('name', INITIAL)
def test_initial_values(name, reset):
    """Also after a ResNet gave everything below it other values, and the plugin its own again."""
    torch.manual_seed(0)
    make, wanted = INITIAL[name]
    module = make()
    if reset and hasattr(module, 'init_weights'):
        for parameter in module.parameters():
            nn.init.constant_(parameter, 7.0)
        module.init_weights()
    found = dict(module.named_parameters())
    for key, expected in wanted.items():
        value = found[key]
        if isinstance(expected, str):
            assert (value == float(expected)).all(), key
            continue
        close = 4 / (2 * value.numel()) ** 0.5
        assert close < 0.4, f'{key}: too few numbers'
        assert value.std().item() == pytest.approx(expected, rel=close), key
        assert value.mean().abs() < 4 * expected / value.numel() ** 0.5, key


def test_shifts_of_acmix():
    expected = torch.eye(9).view(9, 3, 3)
    for shift in (True, False):
        module = ACmix(8, 16, shift_init=shift)
        module.init_weights()
        weight = module.operator.mix.dep_conv.weight
        assert all(torch.equal(w, expected) for w in weight) == shift


def test_kernel_of_the_gate_of_cbam():
    """He's values by fan-out, of the only output: 2 / 49."""
    torch.manual_seed(0)
    values = torch.cat([CBAM(16).spatial_gate.conv.weight.flatten() for _ in range(40)])
    assert values.std().item() == pytest.approx((2 / 49) ** 0.5, rel=0.05)


def test_numbers_of_norms():
    """Momentum 0.01 in the gates of CBAM and of triplets, torch's 0.1 in all others."""
    made = {
        'CBAM': CBAM(16),
        'TripletAttention': TripletAttention(16),
        'BAM': BAM(16),
        'GatherExcite': GatherExcite(16),
        'CoordinateAttention': CoordinateAttention(16),
        'SelectiveKernel': SelectiveKernel(16),
        'LambdaLayer': LambdaLayer(16),
    }
    for name, module in made.items():
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        momentum = 0.01 if name in ('CBAM', 'TripletAttention') else 0.1
        assert {(n.eps, n.momentum) for n in norms} == {(1e-5, momentum)}, name
    cfg = dict(type='BN', eps=1e-2, momentum=0.3)
    for plugin in (
        CBAM,
        BAM,
        GatherExcite,
        TripletAttention,
        CoordinateAttention,
        SelectiveKernel,
        LambdaLayer,
    ):
        norms = [m for m in plugin(16, norm_cfg=cfg).modules() if isinstance(m, _BatchNorm)]
        assert {(n.eps, n.momentum) for n in norms} == {(1e-2, 0.3)}, plugin


@pytest.mark.parametrize('shape', [(1, 4), (1, 4, 1, 1)])
def test_norm_of_a_single_value(shape):
    """By the running statistics, with the norm's own eps, and they stay as they are."""
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4, eps=0.5).double()
    drawn(norm, training=True)
    x = torch.randn(shape, dtype=torch.float64)
    before = norm.running_mean.clone()
    torch.testing.assert_close(apply_norm(norm, x), normed(norm, x))
    assert torch.equal(norm.running_mean, before)
    several = torch.randn(3, *shape[1:], dtype=torch.float64)
    dims = [i for i in range(several.ndim) if i != 1]
    found = apply_norm(norm, several).mean(dims)
    torch.testing.assert_close(found, norm.bias)  # by their own mean
    assert not torch.equal(norm.running_mean, before)
