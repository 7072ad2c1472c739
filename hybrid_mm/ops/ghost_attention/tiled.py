"""ELSA's ghost head as products of the matrices of tiles, which are never kept; in C on CPUs."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.depthwise_convolution import depthwise_convolution
from hybrid_mm.ops.ghost_attention import fused, reference
from hybrid_mm.ops.ghost_attention.tiles import Tiles
from hybrid_mm.ops.grid_convolution import grid_convolution


def attend(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Attention of maps (N, D, H, W) to values (N, C, H, W); see the public function."""
    if mul is None:
        groups = hidden.shape[1] // weight.shape[1]
        dense = torch.block_diag(*weight.chunk(groups))
        out = attend_softmax(hidden, v, dense, bias, heads, kernel_size, dilation)
    else:
        out = _by_rows(hidden, v, weight, bias, mul, heads, kernel_size, dilation)
    return out if add is None else out + _static(v, add, dilation)


def _static(v: Tensor, add: Tensor, dilation: int) -> Tensor:
    """The summands' part: the same filter (C, k, k) of a channel at every pixel."""
    size = add.shape[-1]
    if dilation == 1:
        return grid_convolution(v, add, [1] * size)
    return depthwise_convolution(v, add.unsqueeze(1), dilation=(dilation, dilation))


def _by_rows(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """The factors' part: the published formulation for some rows at a time, recomputed.

    With factors every channel has weights of its own, so that no matrix serves a whole head.
    """
    n, channels, height, width = v.shape
    reach = kernel_size // 2 * dilation
    padded = F.pad(v, (reach,) * 4)
    count = budget.fitting(height, n * channels * kernel_size**2 * width, v.device)
    options = heads, kernel_size, dilation
    outs = []
    for rows in budget.chunks(height, count):
        part = hidden[:, :, rows], padded[:, :, rows.start : rows.stop + 2 * reach]
        arguments = *part, weight, bias, mul, None, *options
        if torch.is_grad_enabled():
            out = checkpoint(
                reference.attend_padded, *arguments, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = reference.attend_padded(*arguments)
        outs.append(out)
    return torch.cat(outs, 2)


# -- the operator: neither factors nor summands ----------------------------------------------------


def _softmax(tiles: Tiles, active: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Softmax weights (T, t, heads, k^2) of activated queries (T * t, D)."""
    logits = torch.addmm(bias, active, weight.t())
    return logits.view(-1, math.prod(tiles.tile), tiles.heads, tiles.kernel**2).softmax(-1)


def _backward(
    grad: Tensor,
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> list[Tensor]:
    if fused.is_available(v.device, v.dtype):
        return fused.backward(grad, hidden, v, weight, bias, heads, kernel_size, dilation)
    tiles = Tiles(v, heads, kernel_size, dilation)
    dtypes = weight.dtype, bias.dtype
    weight, bias = weight.to(tiles.dtype), bias.to(tiles.dtype)
    queries, grads, padded = tiles.cut(hidden), tiles.cut(grad), tiles.pad(v)
    grad_hidden = hidden.new_empty(queries.shape)
    grad_padded = torch.zeros(padded.shape, dtype=tiles.dtype, device=v.device)
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    buffer, products = tiles.buffer(), tiles.buffer()
    for images, rows in tiles:
        values = tiles.rectangles(padded, images, rows)
        dy = tiles.head_pixels(grads[images, rows])
        raw = tiles.pixels(queries[images, rows])
        active = F.gelu(raw)
        weights = _softmax(tiles, active, weight, bias)
        matrices, product = buffer[: len(values)], products[: len(values)]
        tiles.set_weights(matrices, weights)
        tiles.add_rectangles(grad_padded, images, rows, torch.bmm(matrices.transpose(1, 2), dy))
        torch.bmm(dy, values.transpose(1, 2), out=product)
        d_weights = tiles.weights(product)
        d_logits = torch._softmax_backward_data(d_weights, weights, -1, tiles.dtype)
        d_logits = d_logits.view(len(raw), -1)
        grad_weight.addmm_(d_logits.t(), active)
        grad_bias += d_logits.sum(0)
        d_raw = torch.ops.aten.gelu_backward(d_logits @ weight, raw)
        tiles.set_pixels(grad_hidden[images, rows], d_raw)
    grad_v = tiles.unpad(grad_padded).to(v.dtype)
    return [
        tiles.join(grad_hidden),
        grad_v.contiguous(memory_format=torch.channels_last),
        grad_weight.to(dtypes[0]),
        grad_bias.to(dtypes[1]),
    ]


def _backward_fake(
    grad: Tensor, hidden: Tensor, v: Tensor, weight: Tensor, bias: Tensor, *_: int
) -> list[Tensor]:
    maps = [torch.empty_like(x, memory_format=torch.channels_last) for x in (hidden, v)]
    return [*maps, *(x.new_empty(x.shape) for x in (weight, bias))]


@custom_op(
    'hybrid_mm::ghost_attention',
    fake=lambda hidden, v, *_: torch.empty_like(v, memory_format=torch.channels_last),
    backward=_backward,
    backward_fake=_backward_fake,
)
def attend_softmax(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Attention without ghost head, W being dense, (heads * k^2, D); channels last in memory."""
    if fused.is_available(v.device, v.dtype):
        return fused.forward(hidden, v, weight, bias, heads, kernel_size, dilation)
    tiles = Tiles(v, heads, kernel_size, dilation)
    weight, bias = weight.to(tiles.dtype), bias.to(tiles.dtype)
    queries, padded = tiles.cut(hidden), tiles.pad(v)
    out = v.new_empty(*queries.shape[:5], v.shape[1])
    buffer = tiles.buffer()
    for images, rows in tiles:
        values = tiles.rectangles(padded, images, rows)
        matrices = buffer[: len(values)]
        active = F.gelu(tiles.pixels(queries[images, rows]))
        tiles.set_weights(matrices, _softmax(tiles, active, weight, bias))
        tiles.set_head_pixels(out[images, rows], torch.bmm(matrices, values))
    return tiles.join(out)
