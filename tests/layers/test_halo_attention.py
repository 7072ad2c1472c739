"""Halo attention against loops over blocks, queries and keys."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers import HaloAttention


def loops(model: HaloAttention, x: torch.Tensor, block: int, halo: int, padding: bool):
    """Output at full resolution for queries at every ``step``-th pixel of whole blocks."""
    n, _, height, width = x.shape
    step, heads, (d, dv) = model.query_stride, model.heads, model.dims
    x = F.pad(x, (0, -width % block, 0, -height % block))
    rows, columns = x.shape[2:]
    window = block + 2 * halo

    def project(conv, y, part):
        bias = 0 if conv.bias is None else conv.bias[:, None, None]
        return (torch.einsum('oc,nchw->nohw', conv.weight[..., 0, 0], y) + bias).reshape(
            n, heads, part, *y.shape[2:]
        )

    q = project(model.q, x, d)
    kv = project(model.kv, x, d + dv)
    rel_h, rel_w = model.relative.rel_h[0], model.relative.rel_w[0]
    out = x.new_zeros(n, heads, dv, rows // step, columns // step)
    for y in range(0, rows, step):
        for z in range(0, columns, step):
            top, left = y // block * block - halo, z // block * block - halo
            i, j = (y % block) // step, (z % block) // step
            logits, values = [], []
            for a in range(window):
                for b in range(window):
                    v, u = top + a, left + b
                    inside = 0 <= v < rows and 0 <= u < columns
                    if not padding and not (0 <= v < height and 0 <= u < width):
                        continue
                    both = kv[..., v, u] if inside else torch.zeros_like(kv[..., 0, 0])
                    query = q[..., y, z]
                    position = query @ (rel_h[a - i + window - 1] + rel_w[b - j + window - 1])
                    content = (query * both[..., :d]).sum(-1) * d**-0.5
                    logits.append(content + position * model.position_scale)
                    values.append(both[..., d:])
            weights = torch.stack(logits).softmax(0)
            out[..., y // step, z // step] = (weights[..., None] * torch.stack(values)).sum(0)
    return out.flatten(1, 2)


@pytest.mark.parametrize('size', [(4, 8), (5, 6)])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(out_channels=12, qk_ratio=0.5, scale_pos_embed=True),
        dict(dim_head=3, qkv_bias=True),
        dict(stride=2),
        dict(stride=2, avg_down=True, qkv_bias=True),
        dict(stride=2, block_size=3),
        dict(mask_padding=True),
        dict(mask_padding=True, stride=2, block_size=3, qkv_bias=True),
    ],
    ids=str,
)
def test_loops(kwargs, size):
    torch.manual_seed(0)
    kwargs = dict(block_size=2, halo_size=1, heads=2) | kwargs
    model = HaloAttention(8, **kwargs).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    padding = not model.mask_padding
    full = loops(model, x, kwargs['block_size'], 1, padding)
    if not padding and model.query_stride == 1:
        full = full[..., : size[0], : size[1]]  # pooled without what lies beyond the map
    if model.pool > 1:
        full = F.avg_pool2d(full, 2, ceil_mode=True, count_include_pad=False)
    stride = kwargs.get('stride', 1)
    expected = full[..., : -(-size[0] // stride), : -(-size[1] // stride)]
    out = model(x)
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    model.impl = 'reference'
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_mask_changes_the_border_only():
    torch.manual_seed(0)
    model = HaloAttention(8, heads=2, block_size=2, halo_size=1)
    masked = HaloAttention(8, heads=2, block_size=2, halo_size=1, mask_padding=True)
    masked.load_state_dict(model.state_dict())
    x = torch.randn(1, 8, 6, 6)
    changed = (model(x) - masked(x)).abs().amax((0, 1)) > 1e-6
    inner = torch.zeros(6, 6, dtype=torch.bool)
    inner[2:4, 2:4] = True
    assert torch.equal(changed, ~inner)


def test_every_parameter_learns():
    model = HaloAttention(8, heads=2, block_size=4, halo_size=1, stride=2)
    model(torch.randn(1, 8, 8, 8)).pow(2).sum().backward()
    unread = model.relative.rel_h.grad.abs().amax((0, 2)) == 0
    # 6 keys and 2 queries of an axis: entries 0 to 6 - 2 - 1 are never read
    assert unread.tolist() == [True] * 4 + [False] * 7
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_bad_arguments():
    with pytest.raises(ValueError, match='stride of HaloAttention must be 1 or 2, got 3'):
        HaloAttention(8, stride=3)
    with pytest.raises(ValueError, match='heads must divide the 12 output channels, got 8'):
        HaloAttention(8, 12)
    with pytest.raises(ValueError, match='no channel to a query'):
        HaloAttention(8, 32, heads=16, qk_ratio=0.1)
