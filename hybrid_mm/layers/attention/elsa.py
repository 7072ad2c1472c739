"""Enhanced local self-attention: Hadamard attention and ghost head (ELSA).

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), sections
3.2 and 3.3, and its code. There is no position encoding and no factor d^-0.5 in the networks.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.ghost_attention.reference import weighted_values


class ELSA(nn.Module):
    """ELSA in place of window attention, on tokens (N, H, W, C).

    The weights of the k x k pixels around a pixel come from a convolution of the product of query
    and key there, softmax(W gelu(conv(q * k))); the ghost head gives every channel c its own
    filters by a factor and a summand of each tap t::

        y[c, p] = sum_t (mul[c, t]^lam * A[head(c), t, p] + gamma * add[c, t]) v[c, p + t]

    with zeros outside of the map. The summand is a depthwise convolution. Weights A are computed
    for a few rows at a time and again in the backward pass: kept are maps of the size of queries,
    keys and values. Multiplications per pixel: 2 C (C + D) + D k^2 (g + heads) + 2 k^2 C with
    D = 2 C / 3 and width g of a group.

    Args:
        dim: Channels C.
        heads: Number of heads.
        kernel_size: Window k, odd.
        dilation: Distance of the pixels of a window, also in the convolution.
        group_width: Channels of a group of that convolution; D is rounded up to a multiple of it.
        groups: Groups of the 1x1 convolution to the weights.
        lam: Power of the factors; with 0 there are none.
        gamma: Factor of the summands; with 0 there are none.
        qk_scale: Factor of q * k, by default (C / heads)^-0.5; the networks have 1.
        qkv_bias: Bias of the projection to queries, keys and values.
        attn_drop: Dropout rate of the weights; above 0, training keeps them.
        proj_drop: Dropout rate of the result.
        impl: 'tiled', 'triton' (what 'auto' is on a GPU), or 'reference', the published
            formulation, which keeps k^2 copies.

    Raises:
        ValueError: An even window, heads that do not divide C, groups that do not divide both
            sides, an unknown impl.
    """

    @sized_arguments
    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: int = 5,
        dilation: int = 1,
        group_width: int = 8,
        groups: int = 1,
        lam: float = 1,
        gamma: float = 1,
        qk_scale: float | None = None,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'ghost_attention')
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        self.heads, self.kernel_size, self.dilation, self.impl = heads, kernel_size, dilation, impl
        self.lam, self.gamma = lam, gamma
        self.scale = (dim // heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.proj_drop = attn_drop, proj_drop
        self.qk_dim = math.ceil(dim // 3 * 2 / group_width) * group_width
        outputs = heads * kernel_size**2
        if self.qk_dim % groups or outputs % groups:
            raise ValueError(
                f'groups must divide the {self.qk_dim} channels of queries and the {outputs} '
                f'weights of a pixel, got {groups}'
            )
        # 1x1 convolutions, not linear layers, whose weights networks draw anew
        self.pre_proj = nn.Conv2d(dim, 2 * self.qk_dim + dim, 1, bias=qkv_bias)
        self.conv = nn.Conv2d(
            self.qk_dim,
            self.qk_dim,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=self.qk_dim // group_width,
        )
        self.to_weights = nn.Conv2d(self.qk_dim, outputs, 1, groups=groups)
        parts = (lam != 0) + (gamma != 0)
        self.ghost_head = None
        if parts:
            self.ghost_head = nn.Parameter(torch.empty(parts, dim, kernel_size, kernel_size))
            if lam != 0:
                nn.init.normal_(self.ghost_head.data[0])
            if gamma != 0:
                nn.init.trunc_normal_(self.ghost_head.data[-1], std=0.02)
        self.post_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C) to the same shape.

        Args:
            x: Normalised tokens.
            shift: Must be 0: there are no windows to shift.
        """
        if shift:
            raise ValueError(f'ELSA has no windows to shift, got shift {shift}')
        dim = x.shape[3]
        if is_plain(self.pre_proj):
            maps = F.linear(x, self.pre_proj.weight.flatten(1), self.pre_proj.bias)
            maps = maps.permute(0, 3, 1, 2)
        else:
            maps = self.pre_proj(x.permute(0, 3, 1, 2))
        q, k, v = maps.split([self.qk_dim, self.qk_dim, dim], 1)
        product = q * k
        hidden = self.conv(product if self.scale == 1 else product * self.scale)
        mul, add = self.ghost()
        dropout = self.attn_drop if self.training else 0.0
        if is_plain(self.to_weights):
            out = ghost_attention(
                hidden,
                v,
                self.to_weights.weight.flatten(1),
                cast(Tensor, self.to_weights.bias),
                mul,
                add,
                heads=self.heads,
                kernel_size=self.kernel_size,
                dilation=self.dilation,
                dropout=dropout,
                impl=self.impl,
            )
        else:
            logits = self.to_weights(F.gelu(hidden))
            options = self.heads, self.kernel_size, self.dilation, dropout
            out = weighted_values(logits, v, mul, add, *options)
        out = self.post_proj(out.permute(0, 2, 3, 1))
        return F.dropout(out, self.proj_drop, self.training)

    def ghost(self) -> tuple[Tensor | None, Tensor | None]:
        """Factors and summands of the ghost head, (C, k, k) each, or None."""
        if self.ghost_head is None:
            return None, None
        mul = None if self.lam == 0 else self.ghost_head[0] ** self.lam
        add = None if self.gamma == 0 else self.gamma * self.ghost_head[-1]
        return mul, add

    def extra_repr(self) -> str:
        """Window and heads, for printing."""
        return f'heads={self.heads}, kernel_size={self.kernel_size}, dilation={self.dilation}'
