"""Lambda attention against the formula of its docstring, written out position by position."""

import pytest
import torch

from hybrid_mm.ops.lambda_attention import lambda_attention


def plain(q, k, v, weight, bias, dilation):
    n, dim, h, w = k.shape
    heads, (r, s) = q.shape[1] // dim, weight.shape[2:]
    q = q.reshape(n, heads, dim, h, w)
    shares = k.flatten(2).softmax(-1).reshape(k.shape)
    out = torch.zeros(n, heads, v.shape[1], h, w, dtype=v.dtype)
    for y in range(h):
        for x in range(w):
            lambdas = torch.einsum('njyx,nvyx->njv', shares, v) + bias[:, None]
            for a in range(r):
                for b in range(s):
                    i, j = y + (a - r // 2) * dilation, x + (b - s // 2) * dilation
                    if 0 <= i < h and 0 <= j < w:
                        lambdas = lambdas + weight[:, 0, a, b, None] * v[:, None, :, i, j]
            out[..., y, x] = torch.einsum('nhj,njv->nhv', q[..., y, x], lambdas)
    return out.flatten(1, 2)


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('window', [(3, 3), (5, 1), (9, 11)])
def test_formula(window, dilation):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, c, 5, 6, dtype=torch.float64) for c in (6, 2, 4))
    weight, bias = torch.randn(2, 1, *window, dtype=torch.float64), torch.randn(2).double()
    out = lambda_attention(q, k, v, weight, bias, dilation)
    torch.testing.assert_close(out, plain(q, k, v, weight, bias, dilation))


def test_errors():
    q, k, v = (torch.rand(1, c, 5, 5) for c in (6, 2, 4))
    with pytest.raises(ValueError, match=r'must be \(N, heads \* K, H, W\)'):
        lambda_attention(q[:, :5], k, v, torch.rand(2, 1, 3, 3))
    for wrong in (v[..., :4], v[:, :, :4], v.repeat(2, 1, 1, 1)):
        with pytest.raises(ValueError, match=r'values .* must be'):
            lambda_attention(q, k, wrong, torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match=r'queries .* must be'):
        lambda_attention(q[..., :4], k, v, torch.rand(2, 1, 3, 3))
    weight = torch.rand(2, 1, 3, 4)
    with pytest.raises(ValueError, match='odd r and s'):
        lambda_attention(q, k, v, weight)
