"""Lambda layers: attention without a map of weights.

Source: "LambdaNetworks: Modeling Long-Range Interactions Without Attention" (arXiv 2102.08602),
equations 1 to 3 with intra-depth 1, and section 3.3 (lambda convolution).
"""

import torch.nn.functional as F
from torch import Tensor

__all__ = ['lambda_attention']


def lambda_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: int = 1,
) -> Tensor:
    """Apply to every query the linear map of all positions and that of its surroundings.

    With p a position, s the softmax of ``k`` over positions, E the ``weight`` and b the ``bias``,
    for every head out[:, p] = sum_j q[j, p] (sum_m s[j, m] v[:, m] + sum_o E[j, o] v[:, p + o]
    + b[j]).

    Costs H W K V (heads + R + 1) multiplications, R the number of weights of a kernel; N H W K V
    numbers exist at a time.

    Args:
        q: Queries (N, heads * K, H, W).
        k: Keys (N, K, H, W), shared by the heads.
        v: Values (N, V, H, W), shared by the heads.
        weight: Position embeddings (K, 1, r, s), r and s odd; outside of the map values are 0.
            With r = 2 H - 1 and s = 2 W - 1 every pixel sees the whole map.
        bias: Position bias (K,).
        dilation: Distance in pixels of neighbouring entries of an embedding.

    Returns:
        (N, heads * V, H, W).

    Raises:
        ValueError: Shapes do not fit.
    """
    n, dim, h, w = k.shape
    if q.shape[1] % dim or {q.shape[2:], v.shape[2:]} != {(h, w)} or {len(q), len(v)} != {n}:
        raise ValueError(
            f'queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} must be '
            '(N, heads * K, H, W), (N, K, H, W) and (N, V, H, W)'
        )
    size = weight.shape[2:]
    if weight.shape[:2] != (dim, 1) or any(s % 2 == 0 for s in size):
        raise ValueError(
            f'position embeddings must be ({dim}, 1, r, s) with odd r and s, '
            f'got {tuple(weight.shape)}'
        )
    padding = [dilation * (s // 2) for s in size]
    maps = v.reshape(-1, 1, h, w)
    position = F.conv2d(maps, weight, bias, padding=padding, dilation=dilation)
    return apply_lambdas(q, k, v, position.unflatten(0, (n, v.shape[1])))


def apply_lambdas(q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
    """:func:`lambda_attention` with given position lambdas (N, V, K, H, W)."""
    dim = k.shape[1]
    content = v.flatten(2) @ k.flatten(2).softmax(-1).to(v.dtype).transpose(1, 2)  # (N, V, K)
    lambdas = position + content[..., None, None]
    # Heads are split after the permutation, not before: see "torch's CPU batch norm at batch 1" in
    # docs/contributing.md.
    queries = q.permute(0, 2, 3, 1).unflatten(-1, (-1, dim))  # (N, H, W, heads, K)
    out = queries @ lambdas.permute(0, 3, 4, 2, 1)
    return out.flatten(3).permute(0, 3, 1, 2).contiguous()
