"""Maps of attention heads split and merged; widths of heads."""

import torch
from torch import Tensor

from hybrid_mm.ops.arguments import positive


def laid_out(x: Tensor) -> Tensor:
    """A map (N, C, H, W) as projections to heads should have it: on GPUs channels side by side.

    Kernels of attention read vectors of channels then, with half the registers.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x


def split_heads(x: Tensor, heads: int) -> Tensor:
    """View (N, heads * d, H, W) as (N, heads, H, W, d), the form of the attention engine.

    Args:
        x: (N, heads * d, H, W).
        heads: Number of heads.
    """
    return x.unflatten(1, (heads, -1)).permute(0, 1, 3, 4, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Join (N, heads, H, W, d) to (N, heads * d, H, W), contiguous; on GPUs it may be a view.

    Args:
        x: (N, heads, H, W, d).
    """
    x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)
    return x if x.is_cuda else x.contiguous()


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Round to the nearest multiple of the divisor, at least the divisor.

    Args:
        value: Number of channels.
        divisor: What the result is a multiple of.
        round_limit: The result is not below this fraction of the value.
    """
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < round_limit * value else result


def head_widths(
    out_channels: int, heads: int, dim_head: int | None, qk_ratio: float
) -> tuple[int, int]:
    """Width of a head's queries and keys, and of its values.

    Args:
        out_channels: Channels of all values together.
        heads: Number of heads.
        dim_head: Width of queries and keys; by default from ``qk_ratio``.
        qk_ratio: Channels of all queries together as a part of ``out_channels``, which is rounded
            to a multiple of 8.

    Raises:
        ValueError: Heads that do not divide the channels.
    """
    positive('heads', out_channels=out_channels, dim_head=dim_head, qk_ratio=qk_ratio)
    if heads < 1 or out_channels % heads:
        raise ValueError(f'heads must divide the {out_channels} output channels, got {heads}')
    dim = dim_head or make_divisible(out_channels * qk_ratio) // heads
    if dim < 1:
        raise ValueError(
            f'{heads} heads leave no channel to a query ({out_channels} output channels, '
            f'qk_ratio {qk_ratio})'
        )
    return dim, out_channels // heads
