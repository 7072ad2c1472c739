"""Stand-alone attention and its stem against the equations of the paper."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers import AttentionStem, LocalSelfAttention2d


def definition(module, x):
    """Equations 2 and 3 with loops over pixels and the window."""
    k, heads = module.kernel_size, module.heads
    n, _, height, width = x.shape
    q, key, value = (
        conv(x).reshape(n, heads, -1, height, width)
        for conv in (module.query_conv, module.key_conv, module.value_conv)
    )
    half = q.shape[2] // 2
    rel_h, rel_w = (t.expand(heads, -1, -1) for t in (module.rel_h, module.rel_w))
    out = torch.zeros_like(value)
    for y in range(height):
        for c in range(width):
            logits, values = [], []
            query = q[..., y, c]
            for a in range(k):
                for b in range(k):
                    i = y + module.dilation * (a - k // 2)
                    j = c + module.dilation * (b - k // 2)
                    inside = 0 <= i < height and 0 <= j < width
                    if not inside and module.border == 'mask':
                        continue
                    there = key[..., i, j] if inside else torch.zeros_like(query)
                    logit = (query * there).sum(-1)
                    logit = logit + (query[..., :half] * rel_h[:, a]).sum(-1)
                    logits.append(logit + (query[..., half:] * rel_w[:, b]).sum(-1))
                    values.append(value[..., i, j] if inside else torch.zeros_like(query))
            p = (torch.stack(logits, -1) * module.scale).softmax(-1)
            out[..., y, c] = torch.einsum('nht,nhdt->nhd', p, torch.stack(values, -1))
    return out.flatten(1, 2)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(border='mask', share_rel=False, scale=0.5),
        dict(kernel_size=5, dilation=2),
        dict(kernel_size=7, border='mask', impl='reference'),
    ],
    ids=['zero', 'mask', 'dilation', 'reference'],
)
@pytest.mark.parametrize('size', [(6, 5), (2, 1)])
def test_equals_the_equations(kwargs, size):
    torch.manual_seed(0)
    module = LocalSelfAttention2d(3, 8, **({'kernel_size': 3, 'heads': 2} | kwargs)).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), definition(module, x), rtol=1e-10, atol=1e-10)


def test_stride_pools_the_full_map():
    torch.manual_seed(0)
    module = LocalSelfAttention2d(3, 8, 3, 2, stride=2).double()
    x = torch.randn(1, 3, 7, 6, dtype=torch.float64)
    out, full = module(x), definition(module, x)
    assert out.shape == (1, 8, 4, 3)
    torch.testing.assert_close(out[..., 1, 2], full[..., 2:4, 4:6].mean((2, 3)))
    torch.testing.assert_close(
        out[..., 3, 0], full[..., 6, :2].mean(2)
    )  # the last row stands alone


def test_initial_values():
    torch.manual_seed(0)
    module = LocalSelfAttention2d(256, 512, 7, 8)
    assert module.value_conv.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert module.rel_h.std().item() == pytest.approx(64**-0.5, rel=0.15)
    assert sum(p.numel() for p in module.parameters()) == 3 * 256 * 512 + 2 * 7 * 32


@pytest.mark.parametrize('size', [(8, 4), (6, 7), (3, 2)])
def test_stem_equals_the_equations(size):
    torch.manual_seed(0)
    module = AttentionStem(3, 8, block=4, heads=2, mixtures=3).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    mixture = torch.einsum(
        'acd,md->acm', module.emb_row[:, None] + module.emb_col, module.emb_mix
    ).softmax(-1)
    every = torch.stack([conv(x) for conv in module.value_conv], -1)
    height, width = size
    value = torch.stack(
        [
            torch.stack([every[..., i, j, :] @ mixture[i % 4, j % 4] for j in range(width)], -1)
            for i in range(height)
        ],
        -2,
    )
    torch.testing.assert_close(module.values(x), value)
    q, k = (c(x).reshape(2, 2, 4, *size) for c in (module.query_conv, module.key_conv))
    v = value.reshape(2, 2, 4, *size)
    expected = torch.zeros_like(v)
    for i in range(height):
        for j in range(width):
            rows, columns = slice(i // 4 * 4, i // 4 * 4 + 4), slice(j // 4 * 4, j // 4 * 4 + 4)
            keys, values = (t[..., rows, columns].flatten(3) for t in (k, v))
            p = torch.einsum('nhd,nhdt->nht', q[..., i, j], keys).softmax(-1)
            expected[..., i, j] = torch.einsum('nht,nhdt->nhd', p, values)
    torch.testing.assert_close(module(x), expected.flatten(1, 2))


def test_gradients_reach_everything():
    module = AttentionStem(3, 8, heads=2)
    out = module(torch.rand(1, 3, 9, 10))
    F.max_pool2d(out, 4).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: LocalSelfAttention2d(4, 12, heads=5), 'heads must divide the 12 .* got 5'),
        (lambda: LocalSelfAttention2d(4, 12, heads=4), 'must be even.* got 3'),
        (lambda: LocalSelfAttention2d(4, 16, 4), 'kernel_size must be odd, got 4'),
        (lambda: LocalSelfAttention2d(4, 16, border='shift'), "'zero' or 'mask', got 'shift'"),
        (lambda: AttentionStem(3, 10, heads=4), 'heads must divide the 10'),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
