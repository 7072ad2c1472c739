"""Locally enhanced self-attention: a grouped convolution and attention, fused by a dynamic gate.

Source: "Locally Enhanced Self-Attention" (arXiv 2107.05637); where prose and code differ, the code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.layers.convolution.deform_conv import DeformConv2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import require_fixed_size
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.implicit_norm import normalisation
from hybrid_mm.ops.kernels import available
from hybrid_mm.ops.layout import dense_gradient
from hybrid_mm.ops.local_attention import global_attention
from hybrid_mm.ops.normalised_attention import (
    axial_logits,
    flat_context,
    flat_logits,
    flat_tables,
    logit_moments,
)
from hybrid_mm.ops.positions import resize_relative_table
from hybrid_mm.ops.precision import accurate, no_autocast, no_wider

POSITIONS = ('flat', 'axial')


class LESA2d(SizedTables):
    """Locally enhanced self-attention in place of a 3x3 convolution and its norm.

    ``U + gate(U, B) * B`` with a local term U (grouped 3x3 convolution, 1x1 convolution) and a
    context term B (attention of every pixel to all, whose logits are normalised by a batch norm
    per head and term). With 'axial' positions the (H W)^2 logits never exist: the batch norm is an
    affine map per head that goes into keys and tables, and its batch statistics follow from the
    second moments of queries, keys and relative terms.

    Args:
        channels: Channels C of input and output; ``2 * groups`` divides them.
        size: Rows and columns of the map that the position tables are made for.
        groups: Heads, and groups of the convolution.
        stride: The result is average-pooled by it.
        positions: 'axial' (the official 'detection_qr'): a table per axis that follows the size of
            the map as in :func:`~hybrid_mm.ops.positions.resize_relative_table`; 'flat'
            ('classification'): a table over the flattened map, bound to ``size``.
        deformable: Make the 3x3 convolution deformable.
        impl: Algorithm of 'axial' attention, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: Channels that the heads do not divide, unknown positions, or, in forward, a map
            of another size with 'flat' positions.

    Example:
        >>> import torch
        >>> LESA2d(32, (8, 8), groups=4, stride=2)(torch.rand(1, 32, 10, 12)).shape
        torch.Size([1, 32, 5, 6])
    """

    @sized_arguments
    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        groups: int = 8,
        stride: int = 1,
        positions: str = 'axial',
        deformable: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        if groups < 1 or channels % (2 * groups):
            raise ValueError(f'2 * groups must divide the channels, got {groups} and {channels}')
        if positions not in POSITIONS:
            raise ValueError(f'positions must be one of {", ".join(POSITIONS)}, got {positions!r}')
        self.channels, self.size, self.groups = channels, tuple(size), groups
        self.stride, self.positions, self.impl = stride, positions, impl
        dim, length = channels // (2 * groups), size[0] * size[1]
        self.dim, flat = dim, positions == 'flat'
        self.tables = ('rel',) if flat else ('rel_h', 'rel_w')
        self.local: nn.Module
        if deformable:
            self.local = DeformConv2d(channels, groups)
        else:
            self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False) if groups > 1 else nn.Identity()
        self.norm_local = nn.BatchNorm2d(channels)
        self.qkv = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.norm_qkv = nn.BatchNorm1d(2 * channels)
        self.norm_logits = nn.BatchNorm2d((3 if flat else 2) * groups)
        self.norm_context = nn.BatchNorm1d((2 if flat else 1) * channels)
        if flat:
            self.rel = nn.Parameter(torch.empty(4 * dim, 2 * length - 1))
            nn.init.normal_(self.rel, std=(2 * dim) ** -0.5)
        else:
            self.rel_h = nn.Parameter(torch.randn(2 * size[0] - 1, dim) * dim**-0.5)
            self.rel_w = nn.Parameter(torch.randn(2 * size[1] - 1, dim) * dim**-0.5)
        self.reason = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm_reason = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm_project = nn.BatchNorm2d(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        nn.init.normal_(self.qkv.weight, std=channels**-0.5)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Entries about the middle, or interpolated ones.

        Raises:
            ValueError: A table over the flattened map, whose entries depend on its width.
        """
        if self.positions == 'flat':
            if len(table) != shape[0]:
                return table
            raise ValueError(
                f"{table.shape[1]} entries do not fit positions='flat', which are bound to maps of "
                f'{self.size[0]} x {self.size[1]} with {shape[1]}; give the canvas_size that these '
                "weights were trained with, or take positions='axial' and weights for it"
            )
        return resize_relative_table(table, (shape[0] + 1) // 2)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, G, d or 2 d, L)."""
        qkv = self.norm_qkv(self.qkv(x.flatten(2))).unflatten(1, (self.groups, -1))
        return qkv.split((self.dim, self.dim, 2 * self.dim), dim=2)

    def _flat(self, x: Tensor) -> Tensor:
        require_fixed_size(x.shape[2:], "LESA2d with positions='flat'")
        if x.shape[2:] != self.size:
            raise ValueError(
                f"LESA2d with positions='flat' is bound to maps of {self.size}, got "
                f"{tuple(x.shape[2:])}; use positions='axial'"
            )
        q, k, v = self._heads(x)
        widths = (self.dim, self.dim, 2 * self.dim)
        rel_q, rel_k, rel_v = flat_tables(self.rel, q.shape[-1]).split(widths)
        logits = flat_logits(q, k, rel_q, rel_k).to(self.rel.dtype)
        logits = self.norm_logits(logits).unflatten(1, (3, self.groups)).sum(1)
        context = flat_context(logits.softmax(-1).to(v.dtype), v, rel_v)
        out = self.norm_context(context.flatten(1, 3))
        return out.unflatten(1, (-1, 2)).sum(2).unflatten(2, x.shape[2:])

    def _affine(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
        """Factors (2, G) that the batch norm puts on q.k and on the relative term.

        What it adds does not depend on the key, so that softmax drops it.
        """
        scale, _ = normalisation(self.norm_logits, lambda: logit_moments(q, k, rel_h, rel_w))
        # the bias has gradient 0, not none: distributed training counts on one
        return (scale + 0 * self.norm_logits.bias).view(2, -1)

    def _axial(self, x: Tensor) -> Tensor:
        shape = x.shape[2:]
        q, k, v = (y.unflatten(3, shape).permute(0, 1, 3, 4, 2) for y in self._heads(x))
        with no_autocast(x):
            # unscaled products overflow half precision, but not within the kernels
            exact = accurate(q), accurate(k)
            if not available('local_attention', q, k, v):
                (q, k), v = exact, accurate(v)
            rel_h = resize_relative_table(accurate(self.rel_h), shape[0])
            rel_w = resize_relative_table(accurate(self.rel_w), shape[1])
            if is_plain(self.norm_logits):
                content, position = self._affine(*exact, rel_h, rel_w)
                out = global_attention(
                    q,
                    (k * content[:, None, None, None]).to(k.dtype),
                    v,
                    scale=1.0,
                    rel_h=position[:, None, None] * rel_h,
                    rel_w=position[:, None, None] * rel_w,
                    impl=self.impl,
                )
            else:
                logits = no_wider(axial_logits(*exact, rel_h, rel_w), self.rel_h)
                logits = self.norm_logits(logits).unflatten(1, (2, self.groups)).sum(1)
                weights = logits.softmax(-1).to(v.dtype)
                out = (weights @ v.flatten(2, 3)).unflatten(2, shape)
        out = out.permute(0, 1, 4, 2, 3).flatten(1, 2).flatten(2).contiguous()
        return self.norm_context(no_wider(out, self.rel_h)).unflatten(2, shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        unary = self.norm_local(self.mix(self.local(x)))
        binary = self._flat(x) if self.positions == 'flat' else self._axial(x)
        gate = F.relu(torch.cat([unary, binary], 1))
        gate = F.relu(self.norm_reason(self.reason(gate)))
        out = unary + torch.sigmoid(self.norm_project(self.project(gate))) * binary
        out = dense_gradient(out)
        return F.avg_pool2d(out, self.stride, ceil_mode=True) if self.stride > 1 else out
