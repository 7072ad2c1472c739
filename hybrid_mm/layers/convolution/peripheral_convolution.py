"""Peripheral convolution: a large kernel whose taps share weights, the more the further out.

Source: "PeLK: Parameter-efficient Large Kernel ConvNets with Peripheral Convolution" (arXiv
2403.07589), section 3. No official code exists; what the paper leaves open is marked "our reading".
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import positive
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.grid_convolution.axes import check_widths, expand, sum_groups
from hybrid_mm.ops.precision import no_autocast

POS_EMBEDS = ('bias', 'valid', 'none')


def sharing_grid(kernel_size: int, center_size: int, growth: int = 2) -> tuple[int, ...]:
    """Widths of the groups of taps on one axis (eq. 1 and 2).

    Single taps in the centre, then groups of ``growth``, ``growth^2``, ... taps outwards. What is
    left at the end becomes a group of its own if it is more than half as wide as the group before,
    and else widens that group (our reading; it gives every grid that the paper prints).

    Args:
        kernel_size: Odd size K of the kernel.
        center_size: Odd size of the centre with a weight for each tap.
        growth: Base m of the exponential growth.

    Raises:
        ValueError: Even sizes, or a growth below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
    if center_size < 1 or center_size % 2 == 0:
        raise ValueError(f'center_size must be odd and positive, got {center_size}')
    if growth < 1:
        raise ValueError(f'growth must be at least 1, got {growth}')
    center = min(center_size, kernel_size)
    left, width, side = (kernel_size - center) // 2, growth, []
    while width <= left:
        side.append(width)
        left -= width
        width *= growth
    last = side[-1] if side else 1
    if 2 * left > last:
        side.append(left)
    elif left:
        side[-1] += left
    return (*reversed(side), *(1,) * center, *side)


class PeripheralConv2d(nn.Module):
    """Peripheral convolution with the kernel-wise position embedding (eq. 3).

    ``y(p) = sum_ij w(i, j) (x(p + (i, j)) + h(i, j))``, depthwise with stride 1 and zero padding;
    the taps (i, j) of a box share w. As h does not depend on p, its part of the sum is one number
    per channel, ``b = sum_ij w(i, j) h(i, j)``: a batch norm after it removes that in training,
    and then h gets no gradient.

    Args:
        channels: Channels C.
        kernel_size: Odd size K of the kernel.
        center_size: Odd size of the centre with a weight for each tap.
        grid: Widths of all groups on an axis; by default :func:`sharing_grid`.
        pos_embed: 'bias' (eq. 3: h counts on the padding too), 'valid' (h counts only where x lies
            inside the map, which a batch norm does not remove), or 'none'.
        pos_embed_per_channel: Whether every channel has an h of its own (our reading is one for
            all; it fits the paper's parameter counts).
        share_pos_embed: Whether h comes with every call, as all blocks of a stage share it, and is
            not a parameter of this module.
        init_std: Standard deviation of the initial weights (the paper is silent; with shared taps
            the dense kernel adds up to more than one with as many of its own).
        impl: Algorithm, see :func:`~hybrid_mm.ops.grid_convolution.grid_convolution`.

    Raises:
        ValueError: An even kernel, a grid that does not add up to it or is not symmetric, or an
            unknown mode or algorithm.
    """

    @sized_arguments
    def __init__(
        self,
        channels: int,
        kernel_size: int,
        center_size: int = 5,
        grid: Sequence[int] | None = None,
        pos_embed: str = 'bias',
        pos_embed_per_channel: bool = False,
        share_pos_embed: bool = False,
        init_std: float = 0.02,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'grid_convolution')
        positive(self, init_std=init_std)
        if grid is None:
            grid = sharing_grid(kernel_size, center_size)
        self.grid = check_widths(grid, 'grid')
        if sum(self.grid) != kernel_size or self.grid != self.grid[::-1]:
            raise ValueError(
                f'grid must be symmetric and add up to kernel_size={kernel_size}, got '
                f'{list(self.grid)} (sum {sum(self.grid)})'
            )
        if pos_embed not in POS_EMBEDS:
            raise ValueError(f'pos_embed must be one of {", ".join(POS_EMBEDS)}, got {pos_embed!r}')
        self.channels, self.kernel_size, self.impl = channels, kernel_size, impl
        self.pos_embed_mode, self.share_pos_embed = pos_embed, share_pos_embed
        self.weight = nn.Parameter(torch.empty(channels, 1, len(self.grid), len(self.grid)))
        nn.init.trunc_normal_(self.weight, std=init_std)
        self.bias: nn.Parameter | None = None
        self.border: nn.Parameter | None = None
        self.pos_embed = None
        if pos_embed != 'none' and not share_pos_embed:
            self.pos_embed = make_pos_embed(kernel_size, channels if pos_embed_per_channel else 1)

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        """Convolve (N, C, H, W).

        Args:
            x: The map.
            pos_embed: Embedding h, (1 or C, K, K), with ``share_pos_embed``.
        """
        weight = self.weight.squeeze(1)
        y = grid_convolution(x, weight, self.grid, impl=self.impl)
        if self.bias is not None:
            y = y + self.bias[:, None, None].to(y.dtype)
        if self.border is not None:
            return y + self._inside(self.border, *x.shape[2:]).to(y.dtype)
        if self.pos_embed_mode == 'none':
            return y
        pos_embed = self._embedding(pos_embed)
        if self.pos_embed_mode == 'bias':
            return y + self._sum(pos_embed)[:, None, None].to(y.dtype)
        products = expand(weight, self.grid, self.grid) * pos_embed
        return y + self._inside(products, *x.shape[2:]).to(y.dtype)

    def _embedding(self, shared: Tensor | None) -> Tensor:
        """The embedding that counts, shared or of this module."""
        embedding = shared if self.share_pos_embed else self.pos_embed
        if embedding is None:
            raise ValueError('share_pos_embed=True: forward needs the position embedding')
        return embedding

    def _sum(self, pos_embed: Tensor) -> Tensor:
        """The sum of w h over all taps, (C)."""
        sums = sum_groups(pos_embed, self.grid, self.grid)
        return (self.weight.squeeze(1) * sums).sum((1, 2))

    def _inside(self, products: Tensor, height: int, width: int) -> Tensor:
        """Sums of w h over the taps that lie inside the map, (C, H, W).

        Two products with zeros and ones: no cancellation, as differences of prefix sums have it.
        """
        with no_autocast(products):
            rows, columns = (self._on_map(products, size) for size in (height, width))
            return rows @ products @ columns.transpose(-1, -2)

    def _on_map(self, like: Tensor, size: int) -> Tensor:
        """Ones where a tap (column) around a place (row) of an axis lies inside the map."""
        place = torch.arange(size, device=like.device)[:, None]
        tap = torch.arange(self.kernel_size, device=like.device) - self.kernel_size // 2
        return ((place + tap >= 0) & (place + tap < size)).to(like.dtype)

    def fold_pos_embed(self, pos_embed: Tensor | None = None) -> Tensor:
        """Make the embedding part of the present weights, for inference.

        Returns:
            Bias (C) to be added to every output.
        """
        bias = self.weight.new_zeros(self.channels)
        if self.pos_embed_mode == 'bias':
            bias = self._sum(self._embedding(pos_embed))
        elif self.pos_embed_mode == 'valid':
            weight = expand(self.weight.squeeze(1), self.grid, self.grid)
            self.border = nn.Parameter(weight * self._embedding(pos_embed))
        self.pos_embed_mode, self.pos_embed = 'none', None
        return bias

    def check_center(self, size: int) -> None:
        """Check that a kernel of this size can be added to the weights in the centre.

        Raises:
            ValueError: Not all of its taps have a weight of their own.
        """
        first = (len(self.grid) - size) // 2
        if first < 0 or any(width != 1 for width in self.grid[first : first + size]):
            raise ValueError(
                f'a {size}x{size} kernel cannot be merged into the grid {list(self.grid)}: the '
                f'{size} taps in the centre need weights of their own'
            )

    def extra_repr(self) -> str:
        """Show the sizes."""
        return (
            f'{self.channels}, kernel_size={self.kernel_size}, grid={list(self.grid)}, '
            f'pos_embed={self.pos_embed_mode!r}, impl={self.impl!r}'
        )


def make_pos_embed(kernel_size: int, channels: int = 1) -> nn.Parameter:
    """Position embedding of a kernel, (channels, K, K)."""
    embed = nn.Parameter(torch.empty(channels, kernel_size, kernel_size))
    nn.init.trunc_normal_(embed, std=0.02)
    return embed
