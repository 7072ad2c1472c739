"""LeViT: sizes of the variants, its attention written out, other sizes, folded norms."""

import pytest
import torch
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import LeViT
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.folded_norm import LinearNorm
from hybrid_mm.ops.distance_attention import distance_attention, resize_distance_table

TINY = dict(
    embed_dims=[16, 20],
    key_dims=[4, 4],
    heads=[2, 3],
    depths=[1, 1],
    mlp_ratios=[2] * 2,
    value_ratios=[2] * 2,
    shrink_heads=[None, 4],
    shrink_key_dims=[None, 4],
    shrink_value_ratios=[None, 4],
    shrink_mlp_ratios=[None, 2],
)
# counted on the official code: parameters without heads, 1e6 multiply-adds by the official counter
OFFICIAL = {
    '128s': (7_005_522, 305),
    '128': (8_442_400, 406),
    '192': (10_175_533, 658),
    '256': (17_865_828, 1128),
    '384': (37_587_764, 2353),
}


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        model = LeViT(arch, out_indices=(4,))
        parameters, macs = complexity(model, (224, 224))
    expected, mmac = OFFICIAL[arch]
    assert parameters == expected
    assert macs / 1e6 == pytest.approx(mmac, rel=0.02)


def drawn(module):
    """Random weights and statistics of norms."""
    torch.manual_seed(0)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5) if name.endswith('var') else tensor.normal_(0, 0.5)
    return module.double()


def written_out(q, k, v, table, stride):
    """Attention of one query after the other."""
    n, heads, height, width, _ = k.shape
    y, x = torch.arange(height)[:, None], torch.arange(width)
    rows = []
    for i in range(0, height, stride):
        row = []
        for j in range(0, width, stride):
            query = q[:, :, i // stride, j // stride]
            logits = torch.einsum('nhd,nhyxd->nhyx', query, k) * q.shape[-1] ** -0.5
            logits = logits + table[:, (y - i).abs(), (x - j).abs()]
            weights = logits.flatten(2).softmax(-1).view(n, heads, height, width)
            row.append(torch.einsum('nhyx,nhyxd->nhd', weights, v))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


@pytest.mark.parametrize('impl', ['mask', 'tiled', 'auto'])
@pytest.mark.parametrize(('size', 'stride'), [((4, 4), 1), ((5, 3), 2), ((1, 6), 2), ((17, 19), 1)])
def test_attention_is_the_definition(impl, size, stride):
    torch.manual_seed(0)
    shorter = [-(-s // stride) for s in size]
    tensors = [
        torch.randn(2, 3, *shorter, 4),
        torch.randn(2, 3, *size, 4),
        torch.randn(2, 3, *size, 5),
        torch.randn(3, *size),
    ]
    tensors = [t.double().requires_grad_() for t in tensors]
    found = distance_attention(*tensors, stride, impl)
    expected = written_out(*tensors, stride)
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(found)
    for a, b in zip(*(torch.autograd.grad(y, tensors, dy) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_order_of_heads_and_what_stands_between():
    """One layer written out: queries, keys and values of a head side by side, Hardswish, norms."""
    layer = drawn(LeViTAttention(6, 5, 2, 3, 2.5, 4, stride=2)).eval()
    x = torch.randn(2, 4, 4, 6, dtype=torch.float64)

    def linear(part, x):
        norm = part.norm
        y = x @ part.linear.weight.t() - norm.running_mean
        return y / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias

    q = linear(layer.q, x[:, ::2, ::2]).view(2, 2, 2, 3, 2)
    kv = linear(layer.kv, x).view(2, 4, 4, 3, 7)
    q, kv = (t.permute(0, 3, 1, 2, 4) for t in (q, kv))
    y = written_out(q, kv[..., :2], kv[..., 2:], layer.distance_bias, 2)
    y = y.permute(0, 2, 3, 1, 4).reshape(2, 2, 2, 15)
    expected = linear(layer.proj, y * (y + 3).clamp(0, 6) / 6)
    torch.testing.assert_close(layer(x), expected)


def test_tables_of_other_sizes():
    table = torch.arange(4.0).view(1, 4, 1) * 10 + torch.arange(4.0)
    assert resize_distance_table(table, (4, 4)) is table
    other = resize_distance_table(table, (7, 2))
    assert other.shape == (1, 7, 2)
    # the nearest and the farthest distances keep their entries, others lie between
    torch.testing.assert_close(other[0, :, 0], torch.linspace(0, 30, 7))
    torch.testing.assert_close(other[0, 0], torch.tensor([0.0, 3.0]))


def saved(function):
    """Bytes kept for the backward pass."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = function()
    del y
    return sum(kept.values())


def test_attention_weights_of_large_maps_are_not_kept():
    layer = LeViTAttention(8, 8, 4, 2, 2, 4).eval()
    small, large = (
        saved(lambda: layer(torch.randn(1, side, side, 8, requires_grad=True)))  # noqa: B023
        for side in (20, 60)
    )
    assert large < 9.5 * small


def test_norms_in_eval_mode_are_not_kept():
    layer = LinearNorm(8, 16)
    x = torch.randn(2, 30, 30, 8, requires_grad=True)
    training, evaluation = (saved(lambda: layer.train(mode)(x)) for mode in (True, False))  # noqa: B023
    assert evaluation < 1.1 * x.nbytes < 2 * x.nbytes < training


@pytest.mark.parametrize('training', [True, False])
def test_linear_norm(training):
    layer = drawn(LinearNorm(5, 7)).train(training)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    variables = [x, *layer.parameters()]
    norm = nn.BatchNorm1d(7).double().train(training)
    norm.load_state_dict(layer.norm.state_dict())
    expected = norm((x @ layer.linear.weight.t()).view(24, 7)).view(2, 3, 4, 7)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.norm.running_var, norm.running_var)
    dy = torch.randn_like(found)
    grads = torch.autograd.grad(found, variables, dy)
    others = [*variables[:2], norm.weight, norm.bias]
    for a, b in zip(grads, torch.autograd.grad(expected, others, dy), strict=True):
        torch.testing.assert_close(a, b)


def test_switch_to_deploy():
    model = drawn(LeViT(TINY, out_indices=(0, 1, 2, 3))).eval()
    x = torch.rand(2, 3, 50, 64, dtype=torch.float64)
    expected = model(x)
    model.switch_to_deploy()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    deployed = LeViT(TINY, out_indices=(0, 1, 2, 3), deploy=True).double().eval()
    deployed.load_state_dict(model.state_dict())
    for a, b, c in zip(model(x), deployed(x), expected, strict=True):
        torch.testing.assert_close(a, c)
        assert torch.equal(a, b)


def test_classifier_into_a_dense_network_for_another_size(tmp_path):
    source = drawn(LeViT(TINY, img_size=64, pooled=True, out_indices=(3,))).float()
    torch.save(source.state_dict() | {'head.bn.weight': torch.ones(20)}, tmp_path / 'cls.pth')
    dense = LeViT(TINY, img_size=112, out_indices=(0, 2))
    dense.load_pretrained(str(tmp_path / 'cls.pth'))
    own, other = (m.stages[2].blocks[0].attn.distance_bias for m in (dense, source))
    assert (own.shape, other.shape) == ((2, 7, 7), (2, 4, 4))
    assert torch.equal(own[:, ::6, ::6], other[:, ::3, ::3])
    assert len(dense.stages) == 3
    x = torch.rand(2, 3, 64, 64)
    maps = LeViT(TINY, img_size=64, out_indices=(3,)).eval()
    maps.load_state_dict(source.state_dict())
    torch.testing.assert_close(source.eval()(x)[0], maps(x)[0].mean((2, 3)))


def test_new_networks_are_what_the_shrinking_layers_leave():
    """Zero scales of the last norms: branches with a shortcut do nothing yet."""
    torch.manual_seed(0)
    model = LeViT(TINY, out_indices=(2,)).eval()
    x = torch.rand(1, 3, 64, 64)
    stem = model.stem(x)
    for stage in model.stages[:2]:
        stem = stage(stem)
    torch.testing.assert_close(model(x)[0], model.stages[2].downsample(stem))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='levit-250'), "LeViT has no arch 'levit-250': did you mean 'levit-25"),
        (
            dict(arch=dict(TINY, embed_dims=[12, 16])),
            r'embed_dims\[0\] must be a multiple of 8, got',
        ),
        (dict(arch=dict(TINY, shrink_heads=[None, None])), 'shrink_heads of LeViT: a number'),
        (dict(impl='fast'), 'impl must be one of auto, reference, tiled, mask'),
        (dict(pooled=True), r'out_indices must be \(4,\), got \(0, 1, 2, 3\)'),
        (dict(drop_path_rate=1.0), r'drop_path_rate must lie in \[0, 1\)'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LeViT(**kwargs)
