"""Attention by relative position in which every head uses the full width (arXiv 1911.03584).

Head h averages the whole map with weights that depend on the offset d = key - query (rows,
columns) alone, or also on the content; the heads are concatenated and mixed by one linear layer.
With a centre per head and a quadratic logit -a/2 |d - c|^2 such attention expresses any
convolution: see :meth:`QuadraticAttention2d.from_conv`.

A logit that is a sum of a row and a column term makes the softmax over the map a product of two
softmaxes over lines, which is exact. Isotropic and learned position logits are such sums; they
cost heads * C * H * W * (H + W) multiply-adds besides the mixing, and nothing of size (H W)^2
exists. Other logits are computed for a slice of the queries at a time, and again in the backward
pass.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.precision import accurate_dtype
from hybrid_mm.ops.separable_attention import separable_attention, separable_heads
from hybrid_mm.ops.sliced_attention import sliced_attention

MODES = ('isotropic', 'full', 'learned', 'learned_content')


class QuadraticAttention2d(SizedTables):
    """Full-width multi-head attention by relative position (arXiv 1911.03584, sections 3 and 4).

    Args:
        in_channels: Channels C of the map.
        out_channels: Channels of the output.
        heads: Heads; the output mixes heads * C channels.
        mode: 'isotropic': logit ``-s^2/2 |d - c|^2`` with a centre c and a spread s per head;
            'full': -1/2 (d - c)^T S S^T (d - c) with a 2 x 2 matrix S per head; 'learned': the sum
            of a learned term of the row and one of the column offset; 'learned_content': this and
            q.k / sqrt(C).
        stride: Distance of the queries: query (i, j) sits on pixel (i * stride, j * stride).
        bias: Whether the mixing has a bias.
        positions: Rows and columns P that the learned tables are made for. On a larger map, offsets
            beyond P - 1 use the outermost entry.
        position_channels: Width of the learned position embeddings, by default C.
        center_std: Standard deviation of the initial centres, in pixels.
        spread_std: Standard deviation of the initial spreads about 1.
        attn_drop: Dropout of the probabilities in training, with one mask for all images of the
            batch as in the official code (one per image for 'learned_content'). It makes the
            probabilities inseparable: training then takes O(heads * C * (H W)^2).

    Raises:
        ValueError: Unknown mode.

    Example:
        >>> import torch
        >>> QuadraticAttention2d(8, 16, heads=9, stride=2)(torch.rand(1, 8, 13, 20)).shape
        torch.Size([1, 16, 7, 10])
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        mode: str = 'isotropic',
        stride: int = 1,
        bias: bool = True,
        positions: int = 16,
        position_channels: int | None = None,
        center_std: float = 2.0,
        spread_std: float = 0.01,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')
        self.in_channels, self.heads, self.mode = in_channels, heads, mode
        self.stride, self.attn_drop = stride, attn_drop
        self.center_std, self.spread_std = center_std, spread_std
        if mode in ('isotropic', 'full'):
            self.centers = nn.Parameter(torch.empty(heads, 2))
            self.spreads = nn.Parameter(torch.empty(heads, *((2, 2) if mode == 'full' else ())))
        else:
            self.tables = ('table_h', 'table_w')
            width = position_channels or in_channels
            self.table_h = nn.Parameter(torch.empty(2 * positions - 1, width))
            self.head_h = nn.Parameter(torch.empty(heads, width))
            self.table_w = nn.Parameter(torch.empty(2 * positions - 1, width))
            self.head_w = nn.Parameter(torch.empty(heads, width))
        if mode == 'learned_content':
            self.query = nn.Linear(in_channels, heads * in_channels)
            self.key = nn.Linear(in_channels, heads * in_channels)
        self.value = nn.Linear(heads * in_channels, out_channels, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters as the official code does; linear layers and tables N(0, 0.02)."""
        for name, parameter in self.named_parameters():
            if name == 'centers':
                nn.init.normal_(parameter, std=self.center_std)
            elif name == 'spreads':
                nn.init.normal_(parameter, std=self.spread_std)
                with torch.no_grad():
                    parameter.add_(torch.eye(2).to(parameter) if parameter.ndim > 1 else 1.0)
            elif name.endswith('bias'):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Entries about the middle; further ones are the outermost, which far offsets take."""
        more = (shape[0] - len(table)) // 2
        if more < 0:
            return table[-more:more]
        return torch.cat([table[:1].expand(more, -1), table, table[-1:].expand(more, -1)])

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, alpha: float, mode: str = 'isotropic'
    ) -> 'QuadraticAttention2d':
        """Attention that computes a convolution (theorem 1): a head per tap, centred on it.

        The larger ``alpha``, the closer. The attention cannot look outside of the map: a head
        whose tap lies there takes the nearest pixel inside, so the limit is the convolution with
        its input padded by replication.

        Args:
            conv: Convolution with an odd kernel, padded to ceil(H / stride) rows, one group.
            alpha: Sharpness, the paper's alpha: logit ``-alpha |d - c|^2``.
            mode: 'isotropic' or 'full'.

        Raises:
            ValueError: Any other convolution, or a learned mode.
        """
        (kh, kw), (sh, sw), dilation = conv.kernel_size, conv.stride, conv.dilation
        same = tuple(d * (k // 2) for d, k in zip(dilation, (kh, kw), strict=True))
        padding = same if conv.padding == 'same' else conv.padding
        if conv.groups != 1 or kh % 2 == 0 or kw % 2 == 0 or padding != same or sh != sw:
            raise ValueError(
                'attention can replace a convolution with odd kernel, padding dilation * '
                f'(kernel // 2), one stride and one group, not for {conv}'
            )
        if mode not in ('isotropic', 'full'):
            raise ValueError(f"mode of from_conv must be 'isotropic' or 'full', got {mode!r}")
        self = cls(
            conv.in_channels, conv.out_channels, kh * kw, mode, sh, conv.bias is not None
        ).to(conv.weight)
        taps = torch.cartesian_prod(torch.arange(kh) - kh // 2, torch.arange(kw) - kw // 2)
        spread = math.sqrt(2 * alpha)
        with torch.no_grad():
            self.centers.copy_(taps * torch.tensor(dilation))
            self.spreads.copy_(spread * torch.eye(2) if mode == 'full' else torch.tensor(spread))
            self.value.weight.copy_(conv.weight.permute(0, 2, 3, 1).flatten(1))
            if conv.bias is not None:
                self.value.bias.copy_(conv.bias)
        return self

    # -- logits of positions, in float32 at least ------------------------------------------------

    @property
    def _given(self) -> Tensor:
        """A parameter that is always there, for device and type."""
        return self.table_h if hasattr(self, 'table_h') else self.centers

    def _offsets(self, size: int) -> Tensor:
        """Key - query (L', L) along an axis."""
        place = torch.arange(size, device=self._given.device)
        return place - place[:: self.stride, None]

    def _logits(self, height: int, width: int) -> tuple[Tensor, Tensor, tuple | None]:
        """Row term (heads, H', H), column term (heads, W', W), factors of a cross term."""
        dtype = accurate_dtype(self._given.dtype)
        if self.mode in ('learned', 'learned_content'):
            row = self._learned(height, self.table_h.to(dtype), self.head_h.to(dtype))
            column = self._learned(width, self.table_w.to(dtype), self.head_w.to(dtype))
            return row, column, None
        centers, spreads = self.centers.to(dtype), self.spreads.to(dtype)
        dy, dx = (
            self._offsets(size) - centers[:, axis, None, None]
            for axis, size in enumerate((height, width))
        )
        if self.mode == 'isotropic':
            a = c = spreads[:, None, None].square()
            return -0.5 * a * dy.square(), -0.5 * c * dx.square(), None
        precision = (spreads[:, :, None] * spreads[:, None]).sum(-1)  # S S^T; autocast keeps it
        a, b, c = (precision[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
        return -0.5 * a * dy.square(), -0.5 * c * dx.square(), (-b * dy, dx)

    def _learned(self, size: int, table: Tensor, head: Tensor) -> Tensor:
        """Term (heads, L', L) of an axis from embeddings of its offsets and those of the heads."""
        terms = (head[:, None] * table).sum(-1)  # (heads, 2 P - 1)
        last = (len(table) - 1) // 2
        return terms[:, self._offsets(size).clamp(-last, last) + last]

    # --------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        dense = x.is_contiguous()
        tokens = x.permute(0, 2, 3, 1)
        rows, columns, cross = self._logits(*x.shape[2:])
        drop = self.attn_drop if self.training else 0.0
        plain = is_plain(self.value)
        if cross is None and self.mode != 'learned_content' and drop == 0:
            factors = rows.softmax(-1), columns.softmax(-1)
            if not plain:
                out = self.value(separable_heads(tokens, *factors))
            else:
                weight = self.value.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)
                out = separable_attention(tokens, *factors, weight)
                if self.value.bias is not None:
                    out = out + self.value.bias.to(out.dtype)
        else:
            q, k = self._content(tokens) if self.mode == 'learned_content' else (None, None)
            value = (self.value.weight, self.value.bias) if plain else (None, None)
            out = sliced_attention(
                tokens, rows, columns, *value, cross=cross, q=q, k=k, dropout=drop
            )
            out = out if plain else self.value(out)
        out = out.permute(0, 3, 1, 2)
        return out.contiguous() if dense else out

    def _content(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (N, heads, H' * W', C) and keys (N, heads, C, H * W) of a map (N, H, W, C)."""
        places = tokens[:, :: self.stride, :: self.stride]
        q, k = (
            layer(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))
            for layer, x in ((self.query, places), (self.key, tokens))
        )
        return q.transpose(1, 2), k.permute(0, 2, 3, 1)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f'{self.in_channels}, heads={self.heads}, mode={self.mode!r}, stride={self.stride}'
