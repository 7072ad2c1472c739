"""The weighted sum of taps: in C on CPUs, else one tap of all windows at a time."""

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.precision import accurate
from hybrid_mm.ops.vector_attention import fused
from hybrid_mm.ops.vector_attention.window import Window


def backward(
    grad: Tensor, weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> list[Tensor]:
    """Gradients of weights and values, contiguous."""
    if fused.is_available(values, stride):
        exact = accurate(grad), accurate(weights), accurate(values)
        of_weights, of_values = fused.backward(*exact, dilation)
        return [of_weights.to(weights.dtype), of_values.to(values.dtype)]
    window, groups = Window(kernel_size, stride, dilation), weights.shape[1]
    maps, grad = (x.unflatten(1, (-1, groups)) for x in (values, grad))
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    grad_values = torch.zeros_like(accurate(maps), memory_format=torch.contiguous_format)
    views, grad_views = (window.views(x, weights.shape[3:]) for x in (maps, grad_values))
    for tap, (view, grad_view) in enumerate(zip(views, grad_views, strict=True)):
        grad_weights[:, :, tap] = (grad * view).sum(1)
        grad_view.addcmul_(grad, weights[:, None, :, tap])
    return [grad_weights, grad_values.flatten(1, 2).to(values.dtype)]


@custom_op(
    'hybrid_mm::aggregate_taps',
    fake=lambda w, v, *_: v.new_empty(*v.shape[:2], *w.shape[3:]),
    backward=backward,
)
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
    if fused.is_available(values, stride):
        return fused.forward(accurate(weights), accurate(values), dilation).to(values.dtype)
    window = Window(kernel_size, stride, dilation)
    n, groups, _, height, width = weights.shape
    maps = values.unflatten(1, (-1, groups))
    out = accurate(values[:0]).new_zeros(n, maps.shape[1], groups, height, width)
    for tap, view in enumerate(window.views(maps, weights.shape[3:])):
        out.addcmul_(weights[:, None, :, tap], view)
    return out.flatten(1, 2).to(values.dtype)
