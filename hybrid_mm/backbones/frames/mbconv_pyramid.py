"""Core of the networks of MBConv and attention: MaxViT and CoAtNet."""

import functools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.layers.convolution.mbconv import ACTIVATIONS, Conv3x3, choice
from hybrid_mm.layers.drop import drop_path_schedule
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.ops.positions import fit_tables


class ConvStem(nn.Module):
    """3x3 convolution of stride 2, batch norm, activation, 3x3 convolution.

    Args:
        in_channels: Channels of the image.
        channels: Channels of both convolutions.
        act: Activation.
        padding: See :class:`~hybrid_mm.layers.convolution.mbconv.Conv3x3`.
        bias: Bias of the convolutions.
        norm: Makes a batch norm of a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int],
        act: str,
        padding: str,
        bias: bool,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = Conv3x3(in_channels, channels[0], 2, padding, bias=bias)
        self.norm1 = norm(channels[0])
        self.act = ACTIVATIONS[choice('act', act, ACTIVATIONS)]
        self.conv2 = Conv3x3(channels[0], channels[1], 1, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 2), ceil(W / 2))."""
        return self.conv2(self.act(self.norm1(self.conv1(x))))


class MBConvStage(nn.Module):
    """Blocks, the first of stride 2; the norm is that of the returned map only."""

    def __init__(self, blocks: list[nn.Module], norm: nn.Module, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W)."""
        return run_blocks(self.blocks, x, self.with_cp)


class MBConvPyramid(BaseBackbone):
    """Stem and stages of blocks that a subclass makes.

    ``arch_zoo`` has ``depths`` and ``channels``, one entry per stage; ``stem``, a dict of
    ``channels`` (of its two convolutions) and ``bias``; ``conv``, arguments of
    :class:`~hybrid_mm.layers.convolution.mbconv.MBConv`; ``norm``, arguments of the batch norms;
    ``ln_eps``.

    Args:
        arch: Name of a variant or a dict.
        norm_outputs: Layer norm of each returned map, over its channels.
        pooled: Average the last map before its norm and return it as (N, C, 1, 1), as classifiers
            do.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        norm_cfg: Batch normalisation, ``dict(type='BN')`` or ``dict(type='SyncBN')``; epsilon and
            momentum are those of the variant if they are not in it.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
    """

    def __init__(
        self,
        arch: str | dict,
        norm_outputs: bool = False,
        pooled: bool = False,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.settings = self.resolve_arch(arch)
        self.pooled = pooled
        self.depths, self.stage_channels = self.settings['depths'], self.settings['channels']
        norm_cfg = {**self.settings['norm'], **(norm_cfg or dict(type='BN'))}
        self.conv_settings = dict(
            self.settings['conv'], norm=functools.partial(build_norm, norm_cfg)
        )
        stem = dict(self.settings['stem'])
        act, padding = (
            self.conv_settings.get(name, default)
            for name, default in (('act', 'gelu'), ('padding', 'same'))
        )
        norm = self.conv_settings['norm']
        self.stem = ConvStem(in_channels, stem['channels'], act, padding, stem['bias'], norm)
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        before = stem['channels'][1]
        returned = {i % len(self.depths) for i in self.out_indices}
        for i, channels in enumerate(self.stage_channels):
            blocks = [
                self.make_block(i, before if j == 0 else channels, channels, 1 if j else 2, rate)
                for j, rate in enumerate(rates[i])
            ]
            normed = norm_outputs and i in returned
            norm = LayerNorm2d(channels, self.settings['ln_eps']) if normed else nn.Identity()
            self.stages.append(MBConvStage(blocks, norm, with_cp))
            before = channels
        self.reset_parameters()
        self.finish()

    def make_block(
        self, stage: int, in_channels: int, channels: int, stride: int, drop_path: float
    ) -> nn.Module:
        """Block of a stage, (N, in_channels, H, W) to (N, channels, H', W')."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the weights as the variants were trained from."""
        raise NotImplementedError

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The map of a stage as it is returned."""
        if self.pooled and stage == len(self.stages) - 1:
            x = x.mean((2, 3), keepdim=True)
        return self.stages[stage].norm(x)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout.

        Tables made for another window or map are interpolated. Norms of the returned maps stay as
        they are where the file has none, and those of a file are left out where there are none.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        norms = tuple(f'stages.{stage}.norm.' for stage in range(len(self.stages)))
        own = {k: v for k, v in self.state_dict().items() if k.startswith(norms)}
        fitted = fit_tables(self, state)
        fitted = own | {k: v for k, v in fitted.items() if not k.startswith(norms) or k in own}
        super().load_strictly(fitted, origin)
