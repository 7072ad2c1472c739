"""What else computes the same: NATTEN, FlexAttention, torch's attention with a mask, cuDNN."""

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.positions import bias_matrix

Attention = Callable[..., Tensor]


class Missing(Exception):
    """A peer that cannot be measured here; the text is the reason."""


def natten(window: int, dilation: int = 1, biased: bool = False) -> Attention:
    """Neighborhood attention of NATTEN, of (N, heads, H, W, d) maps ``q, k, v``, and ``bias``.

    Releases 0.17 (the last with a bias) and later have a fused kernel, whose maps are (N, H, W,
    heads, d); with a bias releases from 0.14 on have functions for the two products.

    Raises:
        Missing: It is not installed, or has no bias.
    """
    try:
        from natten import functional
    except ImportError as error:
        raise Missing(f'natten cannot be imported: {error}') from None
    fused = getattr(functional, 'na2d', None)
    has_bias = fused is not None and 'rpb' in inspect.signature(fused).parameters
    if fused is not None and torch.cuda.is_available() and (has_bias or not biased):

        def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            q, k, v = (x.permute(0, 2, 3, 1, 4).contiguous() for x in (q, k, v))
            extra = {} if bias is None else dict(rpb=bias)
            out = fused(q, k, v, kernel_size=window, dilation=dilation, **extra)
            return out.permute(0, 3, 1, 2, 4)

    elif not biased:
        raise Missing('this natten has no fused neighborhood attention')

    elif hasattr(functional, 'na2d_qk'):

        def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            logits = functional.na2d_qk(q * q.shape[-1] ** -0.5, k, window, dilation, rpb=bias)
            return functional.na2d_av(logits.softmax(-1), v, window, dilation)

    elif hasattr(functional, 'natten2dqkrpb'):

        def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            logits = functional.natten2dqkrpb(q * q.shape[-1] ** -0.5, k, bias, window, dilation)
            return functional.natten2dav(logits.softmax(-1), v, window, dilation)

    else:
        raise Missing('this natten has no relative bias (0.17.5 was the last that had)')
    return run


def flex_window(height: int, width: int, window: int, device: torch.device) -> Attention:
    """FlexAttention in windows that move inwards at the border, with an additive table if given.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        window: Taps of the window.
        device: A GPU.

    Raises:
        Missing: This torch has none, or the device is no GPU.
    """
    attention, create = _flex(device)

    def row_and_column(i: Tensor) -> tuple[Tensor, Tensor]:
        return i // width, i % width

    def inside(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        found = None
        for i, j, length in zip(row_and_column(q), row_and_column(k), (height, width), strict=True):
            first = (i - window // 2).clamp(0, length - window)
            sees = (j >= first) & (j < first + window)
            found = sees if found is None else found & sees
        return found  # type: ignore[return-value]

    mask = create(inside, None, None, height * width, height * width, device=device)

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            rows, columns = (
                y - x for x, y in zip(row_and_column(i), row_and_column(j), strict=True)
            )
            limit = window - 1  # pairs that the mask leaves out are computed, too
            rows, columns = rows.clamp(-limit, limit) + limit, columns.clamp(-limit, limit) + limit
            return score + bias[h, rows, columns]  # type: ignore[index]

        parts = (x.flatten(2, 3) for x in (q, k, v))
        out = attention(*parts, score_mod=None if bias is None else add, block_mask=mask)
        return out.unflatten(2, (height, width))

    return run


def flex_whole(height: int, width: int, device: torch.device) -> Attention:
    """FlexAttention over the whole map, with an additive table or with relative terms.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        device: A GPU.

    Raises:
        Missing: This torch has none, or the device is no GPU.
    """
    attention, _ = _flex(device)

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None = None,
        rel_h: Tensor | None = None,
        rel_w: Tensor | None = None,
    ) -> Tensor:
        if bias is None:
            terms = [
                torch.einsum('nhyxd,gld->nhyxl', q, rel).flatten(2, 3) for rel in (rel_h, rel_w)
            ]

        def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            rows, columns = j // width - i // width, j % width - i % width
            rows, columns = rows + height - 1, columns + width - 1
            if bias is not None:
                return score + bias[h, rows, columns]
            return score + terms[0][b, h, i, rows] + terms[1][b, h, i, columns]

        out = attention(*(x.flatten(2, 3) for x in (q, k, v)), score_mod=add)
        return out.unflatten(2, (height, width))

    return run


def _flex(device: torch.device) -> tuple[Callable, Callable]:
    """FlexAttention and the maker of its masks, compiled."""
    if device.type != 'cuda':
        raise Missing('FlexAttention has no backward pass on a CPU')
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        raise Missing('this torch has no FlexAttention') from None
    return torch.compile(flex_attention, dynamic=False), torch.compile(create_block_mask)


def masked_whole(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Torch's attention over the whole map, the table spread out to a mask."""
    parts = (x.flatten(2, 3) for x in (q, k, v))
    out = F.scaled_dot_product_attention(*parts, attn_mask=bias_matrix(bias)[None])
    return out.unflatten(2, q.shape[2:4])


def depthwise(x: Tensor, weight: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Torch's (on a GPU cuDNN's) depthwise convolution, shared weights written out."""
    for axis, widths in ((1, rows), (2, columns)):
        weight = weight.repeat_interleave(torch.tensor(widths, device=weight.device), axis)
    padding = sum(rows) // 2, sum(columns) // 2
    return F.conv2d(x, weight[:, None], padding=padding, groups=x.shape[1])
