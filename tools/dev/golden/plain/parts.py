"""Parts that several networks share."""

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor


def nchw(x: Tensor) -> Tensor:
    """(N, H, W, C) to (N, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def mlp(
    p: Weights, x: Tensor, first: str, second: str, hidden: int, channels: int, gain: float = 0.3
) -> Tensor:
    """Linear, GELU, linear."""
    return p.linear(F.gelu(p.linear(x, first, hidden)), second, channels, gain=gain)


def convnext_downsample(p: Weights, x: Tensor, stage: int, width: int, eps: float) -> Tensor:
    """ConvNeXt's stem, or the reduction before another stage."""
    name = f'downsample_layers.{stage}'
    if stage == 0:
        x = p.conv(x, f'{name}.0', width, 4, 4, padding=0)
        return p.layer_norm_2d(x, f'{name}.1', eps, size=0.05)
    x = p.layer_norm_2d(x, f'{name}.0', eps)
    return p.conv(x, f'{name}.1', width, 2, 2, padding=0, gain=0.1)


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, shift: int, scale: float, bias: Tensor
) -> Tensor:
    """Attention within each window of a map that is rolled already.

    Args:
        q: (N, H, W, heads, d), as k and v.
        k: Keys.
        v: Values.
        window: Side of the windows, which divides H and W.
        shift: By how much the map is rolled: pixels from the two sides of the seam do not mix.
        scale: Factor of the logits.
        bias: (heads, window^2, window^2), by query and key.

    Returns:
        (N, H, W, heads * d).
    """
    height, width = q.shape[1:3]
    out = torch.zeros_like(q)
    for top in range(0, height, window):
        for left in range(0, width, window):
            part = (slice(None), slice(top, top + window), slice(left, left + window))
            a, b, c = (z[part].flatten(1, 2).transpose(1, 2) for z in (q, k, v))
            logits = a @ b.transpose(2, 3) * scale + bias
            if shift:
                y = (torch.arange(top, top + window) >= height - shift).long()
                x = (torch.arange(left, left + window) >= width - shift).long()
                if top + window < height:
                    y = y * 0
                if left + window < width:
                    x = x * 0
                side = (2 * y[:, None] + x).flatten()
                logits = logits - 100.0 * (side[:, None] != side)
            mixed = logits.softmax(-1) @ c
            out[part] = mixed.transpose(1, 2).unflatten(1, (window, window))
    return out.flatten(3)


def offsets(window: int) -> Tensor:
    """Row offset and column offset, query minus key, of all pairs: (2, window^2, window^2)."""
    place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij')).flatten(1)
    return place[:, :, None] - place[:, None, :]


def decomposed_tables(table: torch.Tensor, queries: int, keys: int) -> Tensor:
    """Vectors (queries, keys, d) of one axis of decomposed relative positions (MViTv2)."""
    length = 2 * max(queries, keys) - 1
    if len(table) != length:
        table = F.interpolate(table.t()[None], size=length, mode='linear')[0].t()
    up, down = max(keys / queries, 1.0), max(queries / keys, 1.0)
    place = torch.arange(queries)[:, None] * up - torch.arange(keys) * down + (keys - 1) * down
    return table[place.long()]


def decomposed_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor | None, rel_w: Tensor | None
) -> Tensor:
    """Attention of (N, heads, H, W, d) to (N, heads, H_k, W_k, d), to the whole map."""
    logits = torch.einsum('nhyxd,nhuvd->nhyxuv', q * q.shape[-1] ** -0.5, k)
    if rel_h is not None:
        rows = decomposed_tables(rel_h, q.shape[2], k.shape[2])
        columns = decomposed_tables(rel_w, q.shape[3], k.shape[3])
        logits = logits + torch.einsum('nhyxd,yud->nhyxu', q, rows)[..., None]
        logits = logits + torch.einsum('nhyxd,xvd->nhyxv', q, columns)[..., None, :]
    share = logits.flatten(4).softmax(-1).view_as(logits)
    return torch.einsum('nhyxuv,nhuvd->nhyxd', share, v)


def by_windows(maps: list[Tensor], windows: list[int], attend) -> Tensor:
    """Apply ``attend`` to each window of maps (N, heads, H, W, d), padded with zeros.

    Args:
        maps: Queries, keys and values.
        windows: Side of the windows of each.
        attend: Function of three windows.
    """
    height, width = maps[0].shape[2:4]
    padded = [
        F.pad(x, (0, 0, 0, -x.shape[3] % w, 0, -x.shape[2] % w))
        for x, w in zip(maps, windows, strict=True)
    ]
    out = torch.zeros_like(padded[0])
    side = windows[0]
    for i in range(out.shape[2] // side):
        for j in range(out.shape[3] // side):
            parts = [
                x[:, :, i * w : (i + 1) * w, j * w : (j + 1) * w]
                for x, w in zip(padded, windows, strict=True)
            ]
            out[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side] = attend(*parts)
    return out[:, :, :height, :width]
