"""Attention to the window around a pixel, mirrored at the border, with positions (ACmix)."""

from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.local_attention import local_attention
from hybrid_mm.ops.local_attention.axes import mirrored

__all__ = ['mirrored_attention']


def mirrored_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor,
    window: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    impl: str = 'auto',
) -> Tensor:
    """Attention with the logits ``d^-0.5 q_p.(k_{p+t} + e_p - e_{p+t})`` (arXiv 2111.14556).

    Softmax cancels e_p: algorithms other than the reference subtract e from the keys, and that is
    all that positions cost.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, likewise.
        position: Encoding e of the pixels, (H, W, d).
        window: Taps t of the window on each side, odd.
        stride: Distance of the queries in pixels.
        dilation: Distance of the taps.
        impl: An algorithm of :func:`~hybrid_mm.ops.local_attention.local_attention`; 'reference'
            is the published formulation, with window^2 copies of keys, values and positions.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d).

    Raises:
        ValueError: Even window, unknown impl, shapes that do not fit.
    """
    if resolve(impl, 'local_attention') == 'reference' and not exporting():
        return _reference(q, k, v, position, window, stride, dilation)
    keys = (k - position).to(k.dtype)
    return local_attention(
        q, keys, v, window, dilation=dilation, stride=stride, border='reflect', impl=impl
    )


def _reference(
    q: Tensor, k: Tensor, v: Tensor, position: Tensor, window: int, stride: int, dilation: int
) -> Tensor:
    def unfold(x: Tensor) -> Tensor:
        """Windows of (N, heads, H, W, d): (N, heads, H', W', window^2, d)."""
        reach = dilation * (window // 2)
        x = mirrored(x, reach)
        x = x.unfold(2, 2 * reach + 1, stride).unfold(3, 2 * reach + 1, stride)
        return x[..., ::dilation, ::dilation].flatten(-2).transpose(-1, -2)

    own = position[::stride, ::stride].unsqueeze(-2)
    keys = unfold(k) + own - unfold(position[None, None])
    logits = ((q * q.shape[-1] ** -0.5).unsqueeze(-2) * keys).sum(-1)
    weights, values = logits.softmax(-1), unfold(v)
    return (weights.unsqueeze(-1).to(values.dtype) * values).sum(-2)
