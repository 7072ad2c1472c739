"""Attention-augmented convolution whose attention logits evolve from layer to layer.

Source: "Evolving Attention with Residual Convolutions" (arXiv 2102.12895), section 3.2; pooling and
resizing are exactly those of its published TensorFlow code.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.attention.augmented_convolution import AAConv2d
from hybrid_mm.layers.heads import merge_heads
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.evolving_attention import evolving_attention, evolving_with
from hybrid_mm.ops.export import ceil_div, example_length, has_symbols
from hybrid_mm.ops.fusing import in_its_type, is_plain
from hybrid_mm.ops.windows import missing


def same_padded(x: Tensor, value: float) -> Tensor:
    """Pad as TensorFlow's SAME of :func:`same_padding`, in operators of a graph of any size."""
    height, width = x.shape[-2:]
    # not width % 2: the tracer takes minutes for sizes of nested remainders
    return F.pad(x, (missing(width, 2), 1, missing(height, 2), 1), value=value)


def same_padding(x: Tensor) -> dict[str, Any]:
    """Arguments of a 3x3 pooling of stride 2 that pad as TensorFlow's SAME.

    (N, C, H, W) becomes (N, C, ceil(H / 2), ceil(W / 2)); an even side is padded at its end only.
    """
    padding = tuple(side % 2 for side in x.shape[-2:])
    return dict(kernel_size=3, stride=2, padding=padding, ceil_mode=True)


def _halved(x: Tensor) -> Tensor:
    """Mean of 3 x 3 pixels with stride 2; padding does not count."""
    if has_symbols(x.shape[-2:]):
        sums, counts = (
            F.avg_pool2d(same_padded(y, 0.0), 3, 2) for y in (x, torch.ones_like(x[:1, :1]))
        )
        return sums / counts
    return F.avg_pool2d(x, **same_padding(x), count_include_pad=False)


def _halved_as_traced(x: Tensor, most: int) -> Tensor:
    """:func:`_halved` until there are at most so many positions, as often as for the traced map.

    Operators of a graph are always the same: at a size of the image that needs another number
    of poolings, the graph fails with an index out of bounds.
    """
    height, width = (example_length(side) for side in x.shape[-2:])
    wrong = torch.zeros(1, dtype=torch.bool, device=x.device)
    while height * width > most:
        wrong = wrong | (_positions(x) <= most)
        x, height, width = _halved(x), ceil_div(height, 2), ceil_div(width, 2)
    wrong = wrong | (_positions(x) > most)
    return x * x.new_ones(1).index_select(0, wrong.long())


def _positions(x: Tensor) -> Tensor:
    """Number of positions of a map (N, C, H, W), as a tensor."""
    return torch.arange(x.shape[2] * x.shape[3], device=x.device)[-1] + 1


def resize_from_corner(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing in which pixel i of the result lies at i * in / out (TensorFlow 1).

    Args:
        x: (N, C, H, W).
        size: Rows and columns of the result.
    """
    for dim, target in ((2, size[0]), (3, size[1])):
        length = x.shape[dim]
        place = torch.arange(target, device=x.device)
        # a tensor, for the ONNX exporter does not divide tensors by symbolic sizes
        count = place[-1:] + 1
        place = place * length
        low = place // count
        shape = [-1, 1] if dim == 2 else [-1]
        share = ((place % count).to(x.dtype) / count).view(shape)
        high = (low + 1).clamp(max=length - 1)
        x = torch.lerp(x.index_select(dim, low), x.index_select(dim, high), share)
    return x


class EvolvingAAConv2d(AAConv2d):
    """:class:`~hybrid_mm.layers.AAConv2d` in a chain that passes on its attention logits.

    ``forward(x, previous)`` gives the map and the logits for the next layer; see
    :func:`~hybrid_mm.ops.evolving_attention.evolving_attention` for how they evolve and for the
    memory that a chain needs. Further differences from AAConv2d: a stride and ``attn_downsample``
    are 3x3 average poolings in front of the attention branch (padding does not count), whose result
    is resized with its corner in place; the convolution has no bias, the other two have one.

    Args:
        *args: ``in_channels``, ``out_channels`` and ``kernel_size`` as of AAConv2d.
        evolves: Take the logits of the layer before. The layers of a chain have equal heads and see
            maps of one size.
        alpha: Weight of the convolved logits.
        beta: Weight of the logits of the layer before.
        max_tokens: A map with more positions is pooled by 2 until it has no more than these before
            attention. The memory of a chain grows with their square.
        official_tables: Draw the relative tables from N(d^-0.5, 1) as the published code does,
            which takes the standard deviation for the mean; otherwise from N(0, 1 / d).
        stride: 1 or 2.
        impl: See :func:`~hybrid_mm.ops.evolving_attention.evolving_attention`.
        **kwargs: ``key_channels``, ``value_channels``, ``heads``, ``size``, ``dilation`` and
            ``attn_downsample`` as of AAConv2d.

    Raises:
        ValueError: A stride other than 1 and 2, ``max_tokens`` below 1, an unknown impl, or as
            AAConv2d.
    """

    @sized_arguments
    def __init__(
        self,
        *args: Any,
        evolves: bool,
        alpha: float = 1.0,
        beta: float = 0.5,
        max_tokens: int | None = None,
        official_tables: bool = False,
        stride: int = 1,
        impl: str = 'auto',
        **kwargs: Any,
    ) -> None:
        check_impl(impl, 'evolving_attention')
        if stride not in (1, 2):
            raise ValueError(f'stride must be 1 or 2, got {stride}')
        super().__init__(*args, stride=stride, bias=True, impl=impl, **kwargs)
        self.conv_out.register_parameter('bias', None)
        self.qkv_conv.stride = (1, 1)  # the pooling in front has it
        self.stride, self.alpha, self.beta, self.max_tokens = stride, alpha, beta, max_tokens
        self.evolve = nn.Conv2d(self.heads, self.heads, 3, padding=1) if evolves else None
        if official_tables and self.relative is not None:
            for table in self.relative.parameters():
                nn.init.normal_(table, mean=table.shape[-1] ** -0.5)

    def pooled(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Input of the attention branch, and the rows and columns of its result."""
        if self.stride == 2:
            x = _halved(x)
        height, width = x.shape[-2:]
        if self.attn_downsample:
            x = _halved(x)
        if self.max_tokens is not None and has_symbols(x.shape[-2:]):
            return _halved_as_traced(x, self.max_tokens), (height, width)
        while self.max_tokens is not None and x.shape[-2] * x.shape[-1] > self.max_tokens:
            x = _halved(x)
        return x, (height, width)

    def forward(  # type: ignore[override]  # logits are an argument and a result, too
        self, x: Tensor, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, H, W) and logits of the layer before, (N, heads, T, T).

        Returns:
            The map (N, out_channels, ceil(H / stride), ceil(W / stride)), and the logits.

        Raises:
            ValueError: No logits for a layer that evolves, or logits for one that does not.
        """
        evolves = self.evolve is not None
        if evolves != (previous is not None):
            need = 'the' if evolves else 'no'
            raise ValueError(f'a layer with evolves={evolves} needs {need} previous logits')
        conv = self.conv_out(x)
        x, size = self.pooled(x)
        q, k, v, *tables = self.project(x)
        rel_h, rel_w = (None if table is None else table[0] for table in tables)
        rates: dict[str, Any] = dict(alpha=self.alpha, beta=self.beta)
        if previous is None or self.evolve is None:
            out, logits = evolving_attention(q, k, v, rel_h, rel_w, impl=self.impl, **rates)
        elif is_plain(self.evolve):
            evolution = previous, self.evolve.weight, self.evolve.bias
            out, logits = evolving_attention(
                q, k, v, rel_h, rel_w, *evolution, impl=self.impl, **rates
            )
        else:
            evolve = functools.partial(in_its_type, self.evolve)
            out, logits = evolving_with(q, k, v, rel_h, rel_w, previous, evolve, **rates)
        out = self.attn_out(merge_heads(out))
        if has_symbols(size):
            resized = self.attn_downsample or self.max_tokens is not None
        else:
            resized = out.shape[-2:] != size
        if resized:
            out = resize_from_corner(out, size)
        return torch.cat([conv, out], dim=1), logits
