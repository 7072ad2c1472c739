"""LeViT: convolutions, then attention with batch norm, shrinking between stages.

Status: complete, checked number by number against the authors' code.

Source: "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference" (arXiv 2104.01136).
"""

import itertools
import re
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, run_blocks
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm, fold_norms
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.distance_attention import resize_distance_table
from hybrid_mm.registry import MODELS


class StemConv(nn.Module):
    """Convolution 3 x 3 with stride 2 and batch norm, then Hardswish except for the last one.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        act: Apply Hardswish.
    """

    def __init__(self, in_channels: int, channels: int, act: bool = True) -> None:
        super().__init__()
        self.conv = Conv2dNorm(in_channels, channels, stride=2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        x = self.conv(x)
        return F.hardswish(x) if self.act else x


class LeViTMLP(nn.Module):
    """Linear, Hardswish, linear; batch norms in place of biases.

    Args:
        channels: Channels C.
        hidden_channels: Channels in between.
        norm_weight: Initial scale of the last norm.
    """

    def __init__(self, channels: int, hidden_channels: int, norm_weight: float) -> None:
        super().__init__()
        self.fc1 = LinearNorm(channels, hidden_channels)
        self.fc2 = LinearNorm(hidden_channels, channels, norm_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return self.fc2(F.hardswish(self.fc1(x)))


class LeViTBlock(nn.Module):
    """Attention and feed-forward network, each with a shortcut.

    Args:
        attn: Maps (N, H, W, C) to the same shape, or, if it shrinks, to a smaller map of C'
            channels: it has no shortcut then.
        mlp: Maps (..., C') to the same shape; None for none.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(self, attn: LeViTAttention, mlp: nn.Module | None, drop_path: float) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / s), ceil(W / s), C')."""
        y = self.attn(x)
        x = x + self.drop_path(y) if self.attn.stride == 1 else y
        return x if self.mlp is None else x + self.drop_path(self.mlp(x))


class LeViTStage(nn.Module):
    """Convolution or shrinking attention, then blocks."""

    def __init__(self, down: nn.Module, blocks: list[nn.Module], with_cp: bool) -> None:
        super().__init__()
        self.downsample = down
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W)."""
        if isinstance(self.downsample, StemConv):
            x = self.downsample(x)
            if not len(self.blocks):
                return x
            # contiguous, or all that follows would take over the strides of the convolution
            x = x.permute(0, 2, 3, 1).contiguous()
        else:
            x = run_blocks([self.downsample], x.permute(0, 2, 3, 1), self.with_cp)
        return run_blocks(self.blocks, x, self.with_cp).permute(0, 3, 1, 2)


def _arch(embed_dims: list[int], key_dim: int, heads: list[int], depths: list[int]) -> dict:
    return dict(
        embed_dims=embed_dims,
        key_dims=[key_dim] * 3,
        heads=heads,
        depths=depths,
        mlp_ratios=[2] * 3,
        value_ratios=[2] * 3,
        # of the shrinking attention before each stage; the first one has none
        shrink_heads=[None, *(width // key_dim for width in embed_dims[:2])],
        shrink_key_dims=[None, key_dim, key_dim],
        shrink_value_ratios=[None, 4, 4],
        shrink_mlp_ratios=[None, 2, 2],
    )


@MODELS.register_module()
class LeViT(BaseBackbone):
    """LeViT with maps at strides 4 to 64, for images of any size.

    The first two maps are those of the second and third convolution of the stem, behind their
    activation; the other three are those of the attention stages. Stages behind the last returned
    one are not built. Biases by distance, made for a square map, are interpolated for others.

    Args:
        arch: '128s', '128', '192', '256', '384', or a dict with ``embed_dims``, ``key_dims``,
            ``heads``, ``depths``, ``mlp_ratios``, ``value_ratios`` and, for the shrinking attention
            before a stage (None for the first), ``shrink_heads``, ``shrink_key_dims``,
            ``shrink_value_ratios`` and ``shrink_mlp_ratios``, one entry per attention stage.
        img_size: Height and width of the image that the biases are made for.
        pooled: Return the mean of the last map, (N, C), as the classifier does. No other maps then.
        zero_init_residual: Start the last norm of every branch at zero, as the published code does.
        impl: Of the attention, see :func:`~hybrid_mm.ops.distance_attention.distance_attention`.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        in_channels: Channels of the input image.
        out_indices: Maps to return, of 5: strides 4, 8, 16, 32, 64.
        drop_path_rate: Drop-path rate of all blocks alike.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; the stem is the
            first convolution.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`. It saves memory: the
            norms are part of the layers before them then.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant or impl, an image size or widths that do not fit, other maps
            than the last with ``pooled``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import LeViT
        >>> maps = LeViT('128s').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 25, 33), (1, 64, 13, 17), (1, 128, 7, 9), (1, 256, 4, 5)]
    """

    arch_zoo: ClassVar = {
        '128s': _arch([128, 256, 384], 16, [4, 6, 8], [2, 3, 4]),
        '128': _arch([128, 256, 384], 16, [4, 8, 12], [4, 4, 4]),
        '192': _arch([192, 288, 384], 32, [3, 5, 6], [4, 4, 4]),
        '256': _arch([256, 384, 512], 32, [4, 6, 8], [4, 4, 4]),
        '384': _arch([384, 512, 768], 32, [6, 9, 12], [4, 4, 4]),
    }
    arch_aliases: ClassVar = {f'levit-{name}': name for name in arch_zoo}

    def __init__(
        self,
        arch: str | dict = '128s',
        img_size: int = 224,
        pooled: bool = False,
        zero_init_residual: bool = True,
        impl: str = 'auto',
        deploy: bool = False,
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
        check_impl(impl, 'distance_attention')
        if not 0.0 <= drop_path_rate < 1.0:
            raise ValueError(f'drop_path_rate must lie in [0, 1), got {drop_path_rate}')
        widths = settings['embed_dims']
        if widths[0] % 8:
            raise ValueError(f'embed_dims of LeViT must start with a multiple of 8, got {widths}')
        for key in (key for key in settings if key.startswith('shrink_')):
            if not all(isinstance(value, int | float) for value in settings[key][1:]):
                raise ValueError(
                    f'{key} of LeViT: a number for every stage but the first expected, '
                    f'got {settings[key]}'
                )
        self.pooled = pooled
        stem = [widths[0] // 8, widths[0] // 4, widths[0] // 2]
        self.depths = [0, 0, *settings['depths']]
        self.stage_channels = [*stem[1:], *widths]
        self.stem = StemConv(in_channels, stem[0])
        self.stages = nn.ModuleList(
            LeViTStage(StemConv(before, after), [], with_cp)
            for before, after in itertools.pairwise(stem)
        )
        side = -(-img_size // 16)
        last_norm = 0.0 if zero_init_residual else 1.0

        def mlp(i: int, ratios: str = 'mlp_ratios') -> nn.Module | None:
            hidden = int(widths[i] * settings[ratios][i])
            return LeViTMLP(widths[i], hidden, last_norm) if hidden else None

        for i, width in enumerate(widths):
            down = StemConv(stem[-1], width, act=False)
            if i:
                shrink = LeViTAttention(
                    widths[i - 1],
                    width,
                    settings['shrink_key_dims'][i],
                    settings['shrink_heads'][i],
                    settings['shrink_value_ratios'][i],
                    side,
                    stride=2,
                    impl=impl,
                )
                side = -(-side // 2)
                down = LeViTBlock(shrink, mlp(i, 'shrink_mlp_ratios'), drop_path_rate)
            blocks = [
                LeViTBlock(
                    LeViTAttention(
                        width,
                        width,
                        settings['key_dims'][i],
                        settings['heads'][i],
                        settings['value_ratios'][i],
                        side,
                        norm_weight=last_norm,
                        impl=impl,
                    ),
                    mlp(i),
                    drop_path_rate,
                )
                for _ in range(settings['depths'][i])
            ]
            self.stages.append(LeViTStage(down, blocks, with_cp))
        self.finish()
        needed = self.out_indices[-1] + 1
        if pooled and (len(self.out_indices) > 1 or needed < len(self.stages)):
            raise ValueError(
                f'pooled gives no maps: out_indices must be ({len(self.stages) - 1},), '
                f'got {self.out_indices}'
            )
        self.stages, self.depths = self.stages[:needed], self.depths[:needed]
        if deploy:
            self.switch_to_deploy()

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W); pooled, (N, C)."""
        return x.mean((2, 3)) if self.pooled else x

    def switch_to_deploy(self) -> None:
        """Merge all norms into the layers before them, for inference."""
        fold_norms(self)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout, its biases fitted to our image size.

        Weights of stages that are not built are left out.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        own, fitted = self.state_dict(), {}
        for key, value in state.items():
            match = re.match(r'stages\.(\d+)\.', key)
            if match and len(self.stages) <= int(match[1]) < len(self.stage_channels):
                continue
            if key.endswith('.distance_bias') and key in own and value.ndim == 3:
                value = resize_distance_table(value, own[key].shape[1:])
            fitted[key] = value
        super().load_strictly(fitted, origin)
