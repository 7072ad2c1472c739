"""BoTNet: ResNets with attention over the whole map in the last stage, and timm's hybrids.

Status: complete; checked number by number against timm's BottleneckAttn and ByobNet and against
distribuuuu's botnet50, which follows the authors' published block.

Source: "Bottleneck Transformers for Visual Recognition" (arXiv 2101.11605).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Ratio, Size, StageSizes
from hybrid_mm.backbones.frames.bottleneck_net import (
    BottleneckArch,
    BottleneckNet,
    BottleneckNetArguments,
    GateArch,
    StemArch,
)
from hybrid_mm.backbones.frames.byob_fields import ByobAttention
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention
from hybrid_mm.ops.arguments import one_of, sides
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.registry import MODELS


@dataclass(frozen=True, kw_only=True)
class BoTNetArch(BottleneckArch):
    """Variant of a BoTNet."""

    heads: StageSizes = (4, 4, 4, 4)  # heads of the attention
    dim_head: Size | None = None  # channels of a head's queries; None: from ``qk_ratio``
    qk_ratio: Ratio = 1.0  # channels of the queries to those of the values
    scale_pos_embed: bool = True  # scale the position term like the content term; not in timm


_RESNET = (256, 512, 1024, 2048)
_TIERED = StemArch(kind='tiered', channels=64, pool=True)
_LAST = (False, False, False, True)


def _bot(*depths: int, **settings: Any) -> BoTNetArch:
    """ResNet of the given depths, all of the last stage with attention."""
    return BoTNetArch(depths=depths, channels=_RESNET, attention=_LAST, **settings)


def _s1(*depths: int) -> BoTNetArch:
    """The large classifiers: stride 1 in the last stage, SiLU, SE in blocks without attention."""
    gate = GateArch(kind='se', place='out-conv', ratio=16)
    return _bot(*depths, strides=(1, 2, 2, 1), act='silu', gate=gate)


def _timm(depths: Sequence[int], attention: Sequence[Any], **settings: Any) -> BoTNetArch:
    """Variant of timm."""
    defaults: dict[str, Any] = dict(channels=_RESNET, stem=_TIERED, scale_pos_embed=False)
    return BoTNetArch(depths=depths, attention=attention, **defaults | settings)


@MODELS.register_module()
class BoTNet(BottleneckNet):
    """BoTNet-50 to 200, the classifiers BoTNet-S1, and timm's hybrids.

    Maps of any image size from 32 x 32 up. The position tables follow the size of the image: their
    entries about the middle for a smaller one, linear interpolation for a larger one. Tables of
    checkpoints made for another ``canvas_size`` are fitted in the same way.

    Args:
        arch: 'bot50', 'bot101', 'bot152' and 'bot200' (ReLU; ``strides=(1, 2, 2, 1)`` makes the
            BoTNet-S1 of that depth); the large classifiers 's1-59', 's1-77', 's1-110' and 's1-128'
            with stride 1 in the last stage, SE and SiLU (aliases 't3', 't6', 't4', and 't5' and
            't7', which differ by the size of the image); timm's 'botnet26t', 'botnet50ts',
            'sebotnet33ts' and 'eca_botnext26ts'. Or a dict with fields of :class:`BoTNetArch`, or
            with those of timm's ``ByoModelCfg``, see
            :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`.
        canvas_size: Height and width of the image that the tables are made for: the paper's
            detectors see 1024 x 1024, its classifiers 224 x 224 and more.
        position: 'relative', 'absolute' or 'none'.
        content: With the term of query and key; without, attention is by position alone.
        qkv_bias: Biases of queries, keys and values.
        table_policy: What happens to tables of a file that are made for another size: 'resize', or
            'reset' to keep the initial values.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`;
            ``shortcut_act=True`` is the authors' published block, also in distribuuuu's checkpoint:
            timm leaves the activation out.

    The names of ``'s1-*'`` count layers: 3 a block, stem and head. SE is in blocks without
    attention only, with 1/16 of their channels in the middle; it follows their last norm, as in
    SE-ResNets.

    Raises:
        ValueError: An unknown variant, or settings that do not fit each other.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import BoTNet
        >>> maps = BoTNet('bot50', canvas_size=(96, 128)).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_class = BoTNetArch
    byob_attention = ByobAttention(
        'bottleneck',
        dict(
            num_heads=('heads', 4),
            dim_head=('dim_head', None),
            qk_ratio=('qk_ratio', 1.0),
            scale_pos_embed=('scale_pos_embed', False),
        ),
        ('qkv_bias',),
    )
    arch_zoo: ClassVar = {
        'bot50': _bot(3, 4, 6, 3),
        'bot101': _bot(3, 4, 23, 3),
        'bot152': _bot(3, 8, 36, 3),
        'bot200': _bot(3, 24, 36, 3),
        's1-59': _s1(3, 4, 6, 6),
        's1-77': _s1(3, 4, 6, 12),
        's1-110': _s1(3, 4, 23, 6),
        's1-128': _s1(3, 4, 23, 12),
        'botnet26t': _timm((2, 2, 2, 2), (False, False, (1,), True)),
        'botnet50ts': _timm((3, 4, 6, 3), (False, (3,), (1, 3, 5), (1,)), act='silu'),
        'sebotnet33ts': _timm(
            (2, 3, 3, 2),
            (False, (2,), (2,), True),
            channels=(256, 512, 1024, 1536),
            ratios=(0.25, 0.25, 0.25, 0.333),
            stem=StemArch(kind='tiered', channels=64, pool=False),
            act='silu',
            gate=GateArch(kind='se', place='mid', ratio=16),
            final=1280,
        ),
        'eca_botnext26ts': _timm(
            (2, 2, 2, 2),
            (False, False, (1,), True),
            act='silu',
            group_size=16,
            gate=GateArch(kind='eca', place='mid'),
            dim_head=16,
        ),
    }
    arch_aliases: ClassVar = {
        't3': 's1-59', 't4': 's1-110', 't5': 's1-128', 't6': 's1-77', 't7': 's1-128'
    }  # fmt: skip

    arch: BoTNetArch

    def __init__(
        self,
        arch: str | Mapping | BoTNetArch = 'bot50',
        canvas_size: int | Sequence[int] = (1024, 1024),
        position: str = 'relative',
        content: bool = True,
        qkv_bias: bool = False,
        table_policy: str = 'resize',
        **kwargs: Unpack[BottleneckNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ('resize', 'reset'), table_policy=table_policy)
        self.canvas_size = sides(self, canvas_size=canvas_size)
        self.table_policy = table_policy
        self.position, self.content, self.qkv_bias = position, content, qkv_bias
        self.build()

    def table_size(self, slot: ConvSlot) -> tuple[int, int]:
        """Rows and columns of the map under attention for an image of ``canvas_size``."""
        height, width = self.canvas_size
        return -(-height // slot.reduction), -(-width // slot.reduction)

    def make_attention(self, slot: ConvSlot) -> nn.Module:
        """Attention over the whole map."""
        arch = self.arch
        return BottleneckAttention(
            slot.in_channels,
            self.table_size(slot),
            slot.channels,
            slot.stride,
            arch.heads[slot.stage],
            arch.dim_head,
            arch.qk_ratio,
            scale_pos_embed=arch.scale_pos_embed,
            position=self.position,
            content=self.content,
            qkv_bias=self.qkv_bias,
            impl=self.impl,
        )

    def fit_weights(self, state: StateDict) -> StateDict:
        """Put our initial values in place of tables of another size, if asked for."""
        state = super().fit_weights(state)
        if self.table_policy == 'reset':
            own = self.state_dict()
            fitted, _ = fitted_weights(nn.ModuleDict(dict(stages=self.stages)), state)
            state.update((key, own[key]) for key in state if fitted[key] is not state[key])
        return state
