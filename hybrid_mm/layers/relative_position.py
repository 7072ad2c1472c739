"""Position encodings in two dimensions, and how each follows another size.

* :class:`RelativePosition2d` (attention augmentation, BoTNet): q.r_h[dy] + q.r_w[dx] with 2 S - 1
  vectors per axis. Smaller maps take the entries about the middle, larger ones interpolate.
* :func:`joined_tables` (stand-alone attention): q.[r_h[dy], r_w[dx]] with k half vectors per axis,
  tied to the window, not to the map. HaloNet's tables are tied to block and halo likewise.
* Window tables (Swin, NAT, QnA): a number b[dy, dx] per head and offset; bicubic interpolation for
  another window, nothing for another map. :class:`RelativeBias2d` (MaxViT, CoAtNet) interpolates
  bilinearly, :class:`LogRelativeBias2d` computes the number from the offset, and
  :class:`TokenBias2d` (BEiT) has numbers for a class token as well.
* :class:`DecomposedPosition2d` and :func:`decomposed_logits` (MViTv2, ViTDet): q.r_h[dy] +
  q.r_w[dx] with keys on a coarser grid; linear interpolation along the offsets.
* Quadratic (:mod:`hybrid_mm.layers.attention.quadratic_attention`): -a/2 |d - c|^2 with a centre
  and a spread per head, in pixels: the same at every size.

Offsets are key minus query unless a function says otherwise; the middle of a table is offset 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import not_negative
from hybrid_mm.ops.fitted_weights import SizedTables, StateDict
from hybrid_mm.ops.positions import (
    bias_matrix,
    resize_bias_table,
    resize_decomposed_table,
    resize_relative_table,
    unflatten_bias_table,
)


class RelativePosition2d(SizedTables):
    """Row and column tables of 2-D relative logits (arXiv 1904.09925, section 3.2.1).

    The logit of query (y, x) and key (v, u) gets q.rel_h[v - y + H - 1] + q.rel_w[u - x + W - 1];
    :func:`hybrid_mm.ops.local_attention.global_attention` takes the two tables as they are.

    Args:
        size: Rows and columns (S_h, S_w) that the tables are made for.
        dim: Width d of a head's queries.
        heads: Tables per head, or 1 that all heads share.
        std: Standard deviation of the initial entries, by default d^-0.5.
    """

    tables: Sequence[str] = ('rel_h', 'rel_w')

    @sized_arguments
    def __init__(
        self, size: tuple[int, int], dim: int, heads: int = 1, std: float | None = None
    ) -> None:
        super().__init__()
        not_negative(self, std=std)
        self.size = tuple(size)
        self.std = dim**-0.5 if std is None else std
        self.rel_h = nn.Parameter(torch.empty(heads, 2 * size[0] - 1, dim))
        self.rel_w = nn.Parameter(torch.empty(heads, 2 * size[1] - 1, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables from N(0, std)."""
        nn.init.normal_(self.rel_h, std=self.std)
        nn.init.normal_(self.rel_w, std=self.std)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Entries about the middle, or interpolated ones."""
        return resize_relative_table(table, (shape[-2] + 1) // 2)

    def forward(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Tables (heads, 2 * height - 1, d) and (heads, 2 * width - 1, d) for a map."""
        return (
            resize_relative_table(self.rel_h, height),
            resize_relative_table(self.rel_w, width),
        )

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f'size={self.size}, dim={self.rel_h.shape[-1]}, heads={len(self.rel_h)}'


class RelativeBias2d(SizedTables):
    """A learned number per head and offset (MaxViT, arXiv 2204.01697; CoAtNet, arXiv 2106.04803).

    Args:
        size: Rows and columns that the table is made for; for others it is interpolated.
        heads: Number of heads.
    """

    tables = ('table',)

    @sized_arguments
    def __init__(self, size: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.size = size[0], size[1]
        self.table = nn.Parameter(torch.empty(heads, 2 * size[0] - 1, 2 * size[1] - 1))
        nn.init.normal_(self.table, std=0.02)

    def fit_weights(self, state: StateDict) -> StateDict:
        """Resize the table; one of CoAtNet's layout is flat."""
        table = state.get('table')
        if isinstance(table, Tensor) and table.ndim == 2 and len(table) == len(self.table):
            try:
                state['table'] = unflatten_bias_table(table, self.size)
            except ValueError as error:
                raise ValueError(f'table: {error}') from error
        return super().fit_weights(state)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate bilinearly."""
        return resize_bias_table(table, self.size)

    def forward(self, height: int, width: int) -> Tensor:
        """Table (heads, 2 * height - 1, 2 * width - 1), by key minus query."""
        return resize_bias_table(self.table, (height, width))


class TokenBias2d(RelativeBias2d):
    """A learned number per head and offset, and three for a class token (BEiT, arXiv 2106.08254).

    All are zero at first, as in MMSegmentation's MAE: a network that was trained without stays as
    it is.

    Args:
        size: Rows and columns that the table is made for; for others it is interpolated.
        heads: Number of heads.
        class_token: There is a class token in front of the map's.
    """

    @sized_arguments
    def __init__(self, size: tuple[int, int], heads: int, class_token: bool = True) -> None:
        super().__init__(size, heads)
        nn.init.zeros_(self.table)
        # of the class token to pixels, of pixels to it, of it to itself
        self.tokens = nn.Parameter(torch.zeros(heads, 3)) if class_token else None

    def fit_weights(self, state: StateDict) -> StateDict:
        """Leave the numbers of a class token out where there is none, and resize the table."""
        if self.tokens is None:
            state.pop('tokens', None)
        return super().fit_weights(state)

    def forward(self, height: int, width: int) -> Tensor:
        """Numbers (heads, L, L) by query and key, of height * width pixels and the class token."""
        pairs = bias_matrix(super().forward(height, width))
        if self.tokens is None:
            return pairs
        row, column, corner = self.tokens[:, :, None, None].unbind(1)
        row = row.expand(-1, 1, pairs.shape[2])
        column = column.expand(-1, pairs.shape[1], 1)
        return torch.cat([torch.cat([corner, row], 2), torch.cat([column, pairs], 2)], 1)


class LogRelativeBias2d(nn.Module):
    """A number per head and offset from a small network of the logarithmic offset.

    Source: "Swin Transformer V2" (arXiv 2111.09883), section 3.3, as timm's CoAtNets have it: the
    coordinates are ``sign(o) log(1 + |o|)`` of offsets o of query minus key, in pixels of the map.

    Args:
        heads: Number of heads.
        hidden_channels: Width of the network.
    """

    @sized_arguments
    def __init__(self, heads: int, hidden_channels: int = 512) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, heads)

    def forward(self, height: int, width: int) -> Tensor:
        """Table (heads, 2 * height - 1, 2 * width - 1), by key minus query."""
        floating = (x for x in self.parameters() if x.is_floating_point())
        like = next(floating, torch.empty(0))  # quantised layers have no parameters
        y, x = (
            -torch.arange(1 - side, side, dtype=like.dtype, device=like.device)
            for side in (height, width)
        )
        y, x = (torch.sign(o) * torch.log1p(o.abs()) for o in (y, x))
        offsets = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
        return self.fc2(F.relu(self.fc1(offsets))).permute(2, 0, 1)


class DecomposedPosition2d(SizedTables):
    """Row and column tables of decomposed relative positions, which heads share (MViTv2).

    Args:
        queries: Rows and columns of the queries that the tables are made for.
        keys: Rows and columns of the keys.
        dim: Width d of a head's queries.
        std: Standard deviation of the initial entries, cut at 2; 0 leaves a network that was
            trained without positions as it is.
    """

    tables = ('rel_h', 'rel_w')

    @sized_arguments
    def __init__(
        self, queries: tuple[int, int], keys: tuple[int, int], dim: int, std: float = 0.0
    ) -> None:
        super().__init__()
        self.size = tuple(2 * max(pair) - 1 for pair in zip(queries, keys, strict=True))
        self.rel_h, self.rel_w = (nn.Parameter(torch.zeros(n, dim)) for n in self.size)
        if std:
            nn.init.trunc_normal_(self.rel_h, std=std)
            nn.init.trunc_normal_(self.rel_w, std=std)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate linearly."""
        return resize_decomposed_table(table, shape[0])

    def extra_repr(self) -> str:
        """Entries of the tables, for printing."""
        return f'size={self.size}, dim={self.rel_h.shape[-1]}'
