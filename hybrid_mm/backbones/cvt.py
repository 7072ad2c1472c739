"""CvT: convolutional token embeddings and convolutional projections.

Status: complete, checked number by number against the authors' code.

Source: "CvT: Introducing Convolutions to Vision Transformers" (arXiv 2103.15808).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import run_blocks
from hybrid_mm.backbones.frames.token_pyramid import TokenPyramid, TokenStage, init_linear
from hybrid_mm.layers.attention.convolutional_projection import ConvolutionalProjectionAttention
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.registry import MODELS


class TokenEmbed(nn.Module):
    """Overlapping patches by a strided convolution, then layer norm; a class token, if any.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        patch_size: Kernel of the convolution.
        stride: Its stride.
        padding: Zeros on each side.
        class_token: Keep a class token for the blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int,
        stride: int,
        padding: int,
        class_token: bool,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride, padding)
        self.norm = nn.LayerNorm(channels)
        if class_token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, H', W', C).

        Raises:
            ValueError: A map that is smaller than a patch.
        """
        needed = self.proj.kernel_size[0] - 2 * self.proj.padding[0]
        if min(x.shape[2:]) < needed:
            raise ValueError(
                f'patches of {self.proj.kernel_size[0]} pixels want a map of {needed} x {needed} '
                f'or more, got {tuple(x.shape[2:])}: take a larger image or smaller patch_strides'
            )
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class QuickGELUMLP(nn.Module):
    """Linear, x * sigmoid(1.702 x), linear.

    Args:
        channels: Channels C.
        hidden_channels: Channels in between.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        # x s(a x) = silu(a x) / a: two tensors are kept for the backward pass instead of three, and
        # the factors cost nothing in the weights
        first, second, a = self.fc1, self.fc2, 1.702
        x = F.silu(F.linear(x, a * first.weight, a * first.bias))
        return F.linear(x, second.weight / a, second.bias)


class CvTBlock(nn.Module):
    """Attention and feed-forward network behind layer norms.

    Args:
        channels: Number of channels C.
        attn: Maps tokens (N, L, C) and the size (H, W) of their map to the same shape.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(
        self, channels: int, attn: nn.Module, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = QuickGELUMLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) of a map of the given size to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CvTStage(TokenStage):
    """Token embedding and blocks.

    ``pooled`` makes it end in what a classifier's head sees before the norm: the class token, or
    all tokens where there is none.
    """

    pooled = False

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W); pooled, (N, L, C)."""
        x = self.embed(x)
        size = tuple(x.shape[1:3])
        x = x.flatten(1, 2)
        token = getattr(self.embed, 'class_token', None)
        if token is not None:
            x = torch.cat([token.expand(len(x), -1, -1).to(x), x], 1)
        x = run_blocks(self.blocks, x, self.with_cp, size)
        if self.pooled:
            return x if token is None else x[:, :1]
        return (x if token is None else x[:, 1:]).unflatten(1, size).permute(0, 3, 1, 2)


def _arch(
    depths: list[int],
    embed_dims: Sequence[int] = (64, 192, 384),
    heads: Sequence[int] = (1, 3, 6),
) -> dict:
    return dict(
        depths=depths,
        embed_dims=list(embed_dims),
        heads=list(heads),
        mlp_ratios=[4, 4, 4],
        patch_sizes=[7, 3, 3],
        patch_strides=[4, 2, 2],
        patch_paddings=[2, 1, 1],
    )


def _per_stage(value: Any, number: int, name: str) -> list:
    """One value for every stage.

    Raises:
        ValueError: Another number of values.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * number
    if len(values) != number:
        raise ValueError(
            f'{name} of CvT: one value, or one for each of the {number} stages expected, '
            f'got {value!r}'
        )
    return values


@MODELS.register_module()
class CvT(TokenPyramid):
    """Convolutional vision Transformer.

    It has three stages, with maps at strides 4, 8 and 16. A neck makes coarser levels of the last
    one (``num_outs=5`` of an FPN, ``add_extra_convs='on_output'``), heads that take several maps
    take three. With the padding of the paper the first map has floor((H + 1) / 4) rows, the next
    ones half of them, rounded up.

    Attention is global in every stage: an image of 800 x 1333 has 66,600 queries and 16,650 keys in
    the first one. Its memory grows with H W all the same, its time with (H W)^2.

    Args:
        arch: '13', '21', 'w24', or a dict with ``depths``, ``embed_dims``, ``heads``,
            ``mlp_ratios``, ``patch_sizes``, ``patch_strides`` and ``patch_paddings``, one entry per
            stage.
        with_cls_token: The last stage has a class token, which the maps of the published weights
            count on; or a flag per stage.
        norm_outputs: A layer norm on every returned map. Without, they are as the blocks leave
            them.
        pooled: Return what the head of the classifier sees as (N, C): the class token behind the
            last norm, without class token the mean over positions. No other maps then.
        projection: 'dw_bn', 'avg' or 'linear', see :class:`ConvolutionalProjectionAttention`; or
            one per stage. So are the next three.
        kernel_size: Kernel of the projections.
        kv_stride: Stride of keys and values.
        qkv_bias: Biases of queries, keys and values.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0 within the last
            stage, the others have none.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; the projections have
            the batch norms.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant or method, heads that do not divide the channels, even
            kernels, other maps than the last with ``pooled``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import CvT
        >>> maps = CvT('13').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 24, 33), (1, 192, 12, 17), (1, 384, 6, 9)]
    """

    arch_zoo: ClassVar = {
        '13': _arch([1, 2, 10]),
        '21': _arch([1, 4, 16]),
        'w24': _arch([2, 2, 20], (192, 768, 1024), (3, 12, 16)),
    }
    arch_aliases: ClassVar = {'cvt-13': '13', 'cvt-21': '21', 'cvt-w24': 'w24'}

    def __init__(
        self,
        arch: str | dict = '13',
        with_cls_token: bool | Sequence[bool] = True,
        norm_outputs: bool = False,
        pooled: bool = False,
        projection: str | Sequence[str] = 'dw_bn',
        kernel_size: int | Sequence[int] = 3,
        kv_stride: int | Sequence[int] = 2,
        qkv_bias: bool | Sequence[bool] = True,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        self.depths, self.stage_channels = settings['depths'], settings['embed_dims']
        self.pooled, self.norm_outputs = pooled, norm_outputs or pooled
        number = len(self.depths)
        if isinstance(with_cls_token, bool):
            with_cls_token = [with_cls_token and i == number - 1 for i in range(number)]
        tokens = _per_stage(with_cls_token, number, 'with_cls_token')
        operators = zip(
            *(
                _per_stage(value, number, name)
                for name, value in (
                    ('projection', projection),
                    ('kernel_size', kernel_size),
                    ('kv_stride', kv_stride),
                    ('qkv_bias', qkv_bias),
                )
            ),
            strict=True,
        )
        rates = drop_path_schedule(drop_path_rate, self.depths[-1:])
        self.stages = nn.ModuleList()
        for i, (channels, operator) in enumerate(zip(self.stage_channels, operators, strict=True)):
            embed = TokenEmbed(
                self.stage_channels[i - 1] if i else in_channels,
                channels,
                settings['patch_sizes'][i],
                settings['patch_strides'][i],
                settings['patch_paddings'][i],
                tokens[i],
            )
            blocks = [
                CvTBlock(
                    channels,
                    ConvolutionalProjectionAttention(channels, settings['heads'][i], *operator),
                    settings['mlp_ratios'][i],
                    rates[0][block] if i == number - 1 else 0.0,
                )
                for block in range(self.depths[i])
            ]
            norm = self.make_norm(i, channels)
            self.stages.append(CvTStage(('embed', embed), blocks, norm, with_cp))
        init_linear(self)
        self.finish()
        last = number - 1
        if pooled and self.out_indices != (last,):
            raise ValueError(
                f'pooled gives no maps: out_indices must be ({last},), got {self.out_indices}'
            )
        self.stages[last].pooled = pooled

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned and normed."""
        return super().make_norm(stage, channels) if self.norm_outputs else nn.Identity()

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W); pooled, (N, C)."""
        if self.pooled:
            return self.stages[stage].norm(x).mean(1)
        return super().returned_map(stage, x.permute(0, 2, 3, 1))
