"""MViTv2: pooling attention with decomposed relative positions, for classes and for detection.

Status: complete; checked number by number against the official code (classification) and against
detectron2 (detection).

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), sections 3 and 4, table 1.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid, TokenStage, init_linear
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.ops.positions import fit_tables
from hybrid_mm.registry import MODELS

_EPS = 1e-6


class PatchEmbed(nn.Module):
    """Overlapping patches of 7 x 7 pixels with stride 4.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 7, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / 4), ceil(W / 4), C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class MultiScaleBlock(nn.Module):
    """Pooling attention and MLP behind layer norms, one of which may widen the map.

    Args:
        channels: Channels of the input.
        attn: Pooling attention; it may have another number of channels.
        out_channels: Channels of the output.
        stride: Stride of the attention's queries.
        mlp_ratio: Hidden width of the MLP as a multiple of its input.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(
        self,
        channels: int,
        attn: PoolingAttention,
        out_channels: int,
        stride: int = 1,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = attn.proj.out_features
        self.stride = stride
        self.widens_attention, self.widens_mlp = width != channels, out_channels != width
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio), out_channels=out_channels)
        if channels != out_channels:
            self.proj = nn.Linear(channels, out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, channels) to (N, ceil(H / stride), ceil(W / stride), out_channels)."""
        y = self.norm1(x)
        if self.widens_attention:
            x = self.proj(y)
        if self.stride > 1:
            x = F.max_pool2d(x.permute(0, 3, 1, 2), self.stride + 1, self.stride, self.stride // 2)
            x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(y))
        y = self.norm2(x)
        if self.widens_mlp:
            x = self.proj(y)
        return x + self.drop_path(self.mlp(y))


def _arch(embed_dim: int, heads: int, *depths: int) -> dict:
    return dict(embed_dim=embed_dim, heads=heads, depths=list(depths))


@MODELS.register_module()
class MViTv2(TokenPyramid):
    """Multiscale Vision Transformer, version 2.

    The defaults are the form for detection: attention within windows but for the last block of
    every stage behind the first, whose keys the second and third stage pool once more. The form
    for classification has ``window_size=None, double_kv_stride=False``. Weights of either load
    into the other; classifiers lack the norms of all maps but the last.

    Maps of any image size from 32 x 32 up; a map has ceil(H / stride) rows.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', or a dict with ``embed_dim`` and ``heads``
            of the first stage, both doubled from stage to stage, and ``depths`` of all stages.
        img_size: Rows and columns of the image, one number or two, that the relative positions are
            made for; weights made for another are interpolated at loading.
        window_size: Pixels of the first stage's windows on each side; halved from stage to stage,
            where the first block still has the windows of the stage before. None: no windows.
        kv_stride: Stride of keys and values in the first stage; halved from stage to stage.
        double_kv_stride: Twice that stride in the last blocks of the second and third stage.
        dim_mul_in_att: Widen the map in the attention of the first block of a stage; otherwise in
            the MLP of the last block before it, so that all maps but the last have twice the
            channels (the published MViTv2-L for classification).
        mlp_ratio: Hidden width of the MLPs as a multiple of their input.
        qkv_bias: Bias of the projections to queries, keys and values.
        relative: With decomposed relative positions.
        residual: With residual pooling.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned, each behind a layer norm of its own.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: Without effect, there is no batch norm.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, windows that are no
            multiples of the strides, or an image too small for the number of stages.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import MViTv2
        >>> maps = MViTv2('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 25, 33), (1, 192, 13, 17), (1, 384, 7, 9), (1, 768, 4, 5)]
    """

    arch_zoo: ClassVar = {
        'tiny': _arch(96, 1, 1, 2, 5, 2),
        'small': _arch(96, 1, 1, 2, 11, 2),
        'base': _arch(96, 1, 2, 3, 16, 3),
        'large': _arch(144, 2, 2, 6, 36, 4),
        'huge': _arch(192, 3, 4, 8, 60, 8),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'h': 'huge'}

    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        window_size: int | None = 56,
        kv_stride: int = 4,
        double_kv_stride: bool = True,
        dim_mul_in_att: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        relative: bool = True,
        residual: bool = True,
        impl: str = 'auto',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        self.depths = settings['depths']
        last = len(self.depths) - 1
        size = tuple(img_size) if isinstance(img_size, list | tuple) else (img_size, img_size)
        if len(size) != 2 or min(size) < 4 * 2**last:
            raise ValueError(
                f'img_size must be one number or two, from {4 * 2**last} on for '
                f'{last + 1} stages, got {img_size}'
            )
        widths = [settings['embed_dim'] * 2**stage for stage in range(last + 1)]
        self.stage_channels = widths if dim_mul_in_att else [*widths[1:], widths[-1]]
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        channels = settings['embed_dim']
        for stage, depth in enumerate(self.depths):
            blocks = []
            for block in range(depth):
                first, final = stage > 0 and block == 0, block == depth - 1
                before = stage - first  # the stage whose grid the block starts from
                window = window_size and window_size // 2**before
                stride_kv = max(kv_stride // 2**stage, 1)
                attn = PoolingAttention(
                    channels,
                    widths[stage],
                    settings['heads'] * 2**stage,
                    tuple(side // (4 * 2**before) for side in size),
                    2 if first else 1,
                    stride_kv * (2 if double_kv_stride and final and stage in (1, 2) else 1),
                    None if final and stage > 0 else window,
                    qkv_bias,
                    relative,
                    residual,
                    impl,
                )
                width = self.stage_channels[stage] if final else widths[stage]
                blocks.append(
                    MultiScaleBlock(
                        channels, attn, width, 2 if first else 1, mlp_ratio, rates[stage][block]
                    )
                )
                channels = width
            if stage:
                down = 'downsample', nn.Identity()  # the first block does it
            else:
                down = 'embed', PatchEmbed(in_channels, widths[0])
            norm = self.make_norm(stage, channels)
            self.stages.append(TokenStage(down, blocks, norm, with_cp))
        init_linear(self)
        self.finish()

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned."""
        norm = super().make_norm(stage, channels)
        return nn.LayerNorm(channels, eps=_EPS) if isinstance(norm, nn.LayerNorm) else norm

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout; relative positions of another size are interpolated.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        super().load_strictly(fit_tables(self, state), origin)
