"""Weighted sums over the taps of a window, with weights of their own for groups of channels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.precision import at_least_float32


def tap_views(
    padded: Tensor, kernel_size: int, stride: int, dilation: int, size: torch.Size
) -> Iterator[Tensor]:
    """Views (..., H', W') of a padded map (..., H, W), one for each tap by rows."""
    height, width = ((n - 1) * stride + 1 for n in size)
    for y in range(0, kernel_size * dilation, dilation):
        for x in range(0, kernel_size * dilation, dilation):
            yield padded[..., y : y + height : stride, x : x + width : stride]


@custom_op('hybrid_mm::aggregate_taps')
def aggregate_taps(
    weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> Tensor:
    """Weighted sum of the taps, ``y[c, p] = sum_t w[c mod G, t, p] v[c, stride p + dilation t]``.

    Args:
        weights: Weights (N, G, k^2, H', W').
        values: Padded map (N, C, H, W) of the same type, C a multiple of G.
        kernel_size: k.
        stride: Distance of the windows.
        dilation: Distance of the taps.

    Returns:
        (N, C, H', W'), summed up in single precision at least.
    """
    n, groups, _, height, width = weights.shape
    maps = values.unflatten(1, (-1, groups))
    out = at_least_float32(values[:0]).new_zeros(n, maps.shape[1], groups, height, width)
    views = tap_views(maps, kernel_size, stride, dilation, weights.shape[3:])
    for tap, view in enumerate(views):
        out.addcmul_(weights[:, None, :, tap], view)
    return out.flatten(1, 2).to(values.dtype)


@aggregate_taps.register_fake
def _(weights, values, kernel_size, stride, dilation):
    return values.new_empty(*values.shape[:2], *weights.shape[3:])


@custom_op('hybrid_mm::aggregate_taps_backward')
def _aggregate_taps_backward(
    grad: Tensor, weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    groups = weights.shape[1]
    maps, grad = (x.unflatten(1, (-1, groups)) for x in (values, grad))
    grad_weights = torch.empty_like(weights)
    grad_values = torch.zeros_like(at_least_float32(maps), memory_format=torch.contiguous_format)
    arguments = kernel_size, stride, dilation, weights.shape[3:]
    views, grad_views = tap_views(maps, *arguments), tap_views(grad_values, *arguments)
    for tap, (view, grad_view) in enumerate(zip(views, grad_views, strict=True)):
        grad_weights[:, :, tap] = (grad * view).sum(1)
        grad_view.addcmul_(grad, weights[:, None, :, tap])
    return grad_weights, grad_values.flatten(1, 2).to(values.dtype)


@_aggregate_taps_backward.register_fake
def _(grad, weights, values, kernel_size, stride, dilation):
    return torch.empty_like(weights), torch.empty_like(values)


def _setup_context(ctx, inputs, output) -> None:
    weights, values, *ctx.arguments = inputs
    ctx.save_for_backward(weights, values)


def _differentiate(ctx, grad: Tensor):
    grads = _aggregate_taps_backward(grad, *ctx.saved_tensors, *ctx.arguments)
    return *grads, None, None, None


aggregate_taps.register_autograd(_differentiate, setup_context=_setup_context)
