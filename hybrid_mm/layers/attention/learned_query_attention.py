"""Local attention with learned queries, without windows in memory.

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 4.
"""

import torch
from torch import Tensor, nn

from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import one_of
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fusing import in_its_type, is_plain
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.precision import accurate, cast_as_autocast, no_autocast


class LearnedQueryAttention2d(nn.Module):
    """QnA: every window is read by the same few learned queries (eq. 6 to 8).

    A window is read by queries that do not depend on the pixel, see
    :func:`~hybrid_mm.ops.learned_queries.learned_query_attention`. Keys are never formed: queries
    times their projection are multiplied with the map. Beside input and output one map of values
    and one of scores is kept for the backward pass, whatever the window. Under autocast scores and
    sums have float32.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of queries, keys and values.
        heads: Number of heads.
        kernel_size: Odd size of the window.
        stride: Stride; the result has ceil(H / stride) rows.
        queries: Number of queries.
        normalize_queries: Whether queries have unit length in every head.
        out_channels: Channels of the result, by default C.
        attention_scale: 'normal' for learned weights of what each query reads, by position in the
            window, or 'none': what the queries read is added up as it is.
        impl: Algorithm, see :func:`~hybrid_mm.ops.learned_queries.learned_query_attention`.

    Raises:
        ValueError: Heads that do not divide C, an even window, an unknown impl or scale.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        channels: int,
        heads: int,
        kernel_size: int,
        stride: int = 1,
        queries: int = 2,
        normalize_queries: bool = True,
        out_channels: int | None = None,
        attention_scale: str = 'normal',
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f'heads must divide the {channels} channels, got {heads}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
        one_of(self, ('normal', 'none'), attention_scale=attention_scale)
        check_impl(impl, 'learned_query_attention')
        self.heads, self.width, self.queries = heads, channels // heads, queries
        self.kernel_size, self.stride = kernel_size, stride
        self.normalize_queries, self.impl = normalize_queries, impl
        self.query = nn.Parameter(torch.empty(queries, channels))
        self.k = nn.Linear(in_channels, channels, bias=False)
        self.v = nn.Linear(in_channels, channels, bias=False)
        self.proj = nn.Linear(channels, out_channels or channels, bias=False)
        window = queries, heads, kernel_size, kernel_size
        self.relative_bias = nn.Parameter(torch.zeros(window))
        self.scale = nn.Parameter(torch.empty(window)) if attention_scale == 'normal' else None
        std = self.width**-0.5
        nn.init.trunc_normal_(self.query, std=std, a=-2 * std, b=2 * std)
        if self.scale is not None:
            nn.init.normal_(self.scale, std=0.02)
        for layer in (self.k, self.v, self.proj):
            lecun_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, ceil(H / stride), ceil(W / stride), out_channels)."""
        values = self.v(x)
        # on GPUs the products run on tensor cores
        x = cast_as_autocast(x)[0] if x.is_cuda else accurate(x)
        with no_autocast(x):
            out = learned_query_attention(
                accurate(self._scores(x)),
                values.permute(0, 3, 1, 2),
                self.relative_bias,
                torch.ones_like(self.relative_bias) if self.scale is None else self.scale,
                stride=self.stride,
                impl=self.impl,
            )
        return self.proj(out.permute(0, 2, 3, 1))

    def _scores(self, x: Tensor) -> Tensor:
        """Products of queries and keys (N, queries, heads, H, W), without forming keys."""
        query = self.query.view(self.queries, self.heads, self.width)
        if self.normalize_queries:
            query = query / (query.norm(dim=-1, keepdim=True) + 1e-6)
        query = query * self.width**-0.5
        if not is_plain(self.k):
            keys = in_its_type(self.k, x).unflatten(-1, (self.heads, self.width))
            return torch.einsum('nyxgd,rgd->nrgyx', keys, query.to(keys.dtype))
        keys = self.k.weight.view(self.heads, self.width, -1)
        weight = torch.einsum('rgd,gdi->rgi', query, keys).to(x.dtype)
        return torch.einsum('nyxi,rgi->nrgyx', x, weight)
