"""ResNet with attention-augmented convolutions whose attention evolves through the network.

Status: complete; checked number by number against the published TensorFlow code's formulas. The
authors published no weights.

Source: "Evolving Attention with Residual Convolutions" (arXiv 2102.12895) and its code.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.aa_resnet import AugmentedResNet
from hybrid_mm.backbones.frames.resnet import (
    Bottleneck,
    ConvSlot,
    ResidualBlock,
    ResNet,
    ResNetArch,
)
from hybrid_mm.layers.attention.evolving_augmented_convolution import (
    EvolvingAAConv2d,
    same_padded,
    same_padding,
)
from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.ops.arguments import left_out, not_negative, positive
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.registry import MODELS


class SameMaxPool(nn.Module):
    """3x3 max pooling of stride 2, padded as TensorFlow's SAME."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        if has_symbols(x.shape[2:]):
            return F.max_pool2d(same_padded(x, -math.inf), 3, 2)
        return F.max_pool2d(x, **same_padding(x))


class EvolvingBottleneck(Bottleneck):
    """Bottleneck that passes attention logits on with the map."""

    def forward(self, state: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Map and logits of the block before to map and logits of this one."""
        x, previous = state
        y = self.act(self.norm1(self.conv1(x)))
        y, logits = self.conv2(y, None if self.conv2.evolve is None else previous)
        y = self.norm3(self.conv3(self.act(self.norm2(y))))
        return self.act(self.shortcut(x) + self.drop_path(y)), logits


@MODELS.register_module()
class EAAAResNet(AugmentedResNet):
    """EA-AA-ResNet: the attention logits of a block go into those of the next, and are convolved.

    The chain of logits runs through successive stages whose maps under attention have the same
    stride (by default stages 2 and 3, at stride 16), and starts anew otherwise (stage 4). Trunk as
    in TensorFlow's official ResNet: its max pooling pads the lower and right border only, and
    initial values are truncated normals of variance 1 / fan-in.

    All logits of a chain are kept for training, see
    :mod:`hybrid_mm.ops.evolving_attention` for figures: ``max_tokens`` bounds them.

    Args:
        arch: 'r50', 'r101', 'r152', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`, with bottlenecks.
        kappa: Key channels as a part of the channels of a convolution, one value or one per stage.
        upsilon: Value channels likewise.
        heads: Number of heads, one value or one per stage.
        alpha: Weight of the convolved logits (beta in the paper).
        beta: Weight of the logits of the block before (alpha in the paper).
        max_tokens: Most positions under attention: larger maps are pooled by 2 again. The default
            is beyond 512 x 512 pixels (1024 positions) and brings 800 x 1333 (4200 positions) to
            1050. None takes every map as it is.
        official_tables: See
            :class:`~hybrid_mm.layers.attention.evolving_augmented_convolution.EvolvingAAConv2d`.
        impl: Algorithm, see :func:`~hybrid_mm.ops.evolving_attention.evolving_attention`.
        zero_init_residual: Let every block start as its shortcut.
        **kwargs: ``augmented``, ``attn_downsample`` and ``canvas_size`` as of
            :class:`~hybrid_mm.backbones.AAResNet`; those of ResNet.

    Raises:
        ValueError: An unknown variant, one without bottlenecks, or heads that do not divide the
            channels.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import EAAAResNet
        >>> maps = EAAAResNet('r50', canvas_size=(96, 128)).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {name: ResNet.arch_zoo[name] for name in ('r50', 'r101', 'r152')}

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        kappa: float | Sequence[float] = 0.25,
        upsilon: float | Sequence[float] = 0.125,
        heads: int | Sequence[int] = 8,
        alpha: float = 1.0,
        beta: float = 0.5,
        max_tokens: int | None = 2048,
        official_tables: bool = False,
        impl: str = 'auto',
        zero_init_residual: bool = False,
        **kwargs: Any,
    ) -> None:
        left_out(self, kwargs, 'min_key_dim')
        super().__init__(
            arch,
            kappa,
            upsilon,
            heads,
            min_key_dim=1,
            impl=impl,
            zero_init_residual=zero_init_residual,
            **kwargs,
        )
        if not self.arch.bottleneck:
            raise ValueError('EAAAResNet has bottlenecks only, got an arch with bottleneck=False')
        positive(self, max_tokens=max_tokens)
        not_negative(self, alpha=alpha, beta=beta)
        self.max_tokens = max_tokens
        self.chain = dict(
            alpha=alpha, beta=beta, max_tokens=max_tokens, official_tables=official_tables
        )
        self.build()

    def reset_parameters(self) -> None:
        """Draw convolutions from truncated normals of variance 1 / fan-in; biases are 0."""
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                lecun_normal_(conv.weight)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def make_stem(self) -> nn.Module:
        """Stem whose pooling pads as TensorFlow does."""
        stem = super().make_stem()
        stem.pool = SameMaxPool()
        return stem

    def attention_stride(self, stage: int) -> int | None:
        """Stride of the map under attention in the image, None without attention."""
        if not self.augmented[stage]:
            return None
        return self.map_strides[stage] * (1 + self.attn_downsample[stage])

    def evolves(self, slot: ConvSlot) -> bool:
        """Whether the logits of the block before reach a block."""
        stage = slot.stage
        if slot.block or not stage:
            return bool(slot.block)
        return (
            self.attention_stride(stage) == self.attention_stride(stage - 1)
            and self.heads[stage] == self.heads[stage - 1]
        )

    def table_size(self, slot: ConvSlot) -> tuple[int, int] | None:
        """Rows and columns of the map under attention for an image of ``canvas_size``."""
        size = super().table_size(slot)
        while size and self.max_tokens is not None and size[0] * size[1] > self.max_tokens:
            size = -(-size[0] // 2), -(-size[1] // 2)
        return size

    def block_class(self, slot: ConvSlot) -> Callable[..., ResidualBlock]:
        """Blocks of augmented stages pass their logits on."""
        return EvolvingBottleneck if self.augmented[slot.stage] else super().block_class(slot)

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Evolving attention parallel to the convolution in the chosen stages."""
        if not self.augmented[slot.stage]:
            return super().make_spatial(slot)
        settings = self.layer_settings(slot) | self.chain
        return EvolvingAAConv2d(**settings, evolves=self.evolves(slot))

    def run_stage(self, stage: int, state: Any) -> Any:
        """Apply a stage.

        Args:
            stage: Its index.
            state: The map, or after an augmented stage the map and the logits of its last block.

        Returns:
            The next state. A chain of logits ends before a stage without attention.
        """
        x, logits = state if isinstance(state, tuple) else (state, None)
        return self.stages[stage]((x, logits) if self.augmented[stage] else x)

    def returned_map(self, stage: int, state: Any) -> Tensor:
        """The map of a stage without the logits."""
        return state[0] if isinstance(state, tuple) else state
