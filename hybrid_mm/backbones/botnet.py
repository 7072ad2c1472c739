"""BoTNet: ResNets with attention over the whole map in the last stage, and timm's hybrids.

Status: complete; checked number by number against timm's BottleneckAttn and ByobNet and against
distribuuuu's botnet50, which follows the authors' published block.

Source: "Bottleneck Transformers for Visual Recognition" (arXiv 2101.11605).
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from hybrid_mm.backbones.frames.bottleneck_net import BottleneckNet
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention
from hybrid_mm.ops.positions import fit_tables
from hybrid_mm.registry import MODELS

_DEFAULTS = dict(
    BottleneckNet.arch_defaults,
    heads=[4, 4, 4, 4],
    dim_head=None,
    qk_ratio=1.0,
    scale_pos_embed=True,
)
_TIMM = dict(_DEFAULTS, stem=dict(kind='tiered', channels=64, pool=True), scale_pos_embed=False)
_RESNET = [256, 512, 1024, 2048]
_SE = dict(kind='se', place='out', ratio=16)


def _bot(*depths: int, **settings: Any) -> dict:
    """ResNet of the given depths, all of the last stage with attention."""
    return dict(
        _DEFAULTS,
        depths=list(depths),
        channels=_RESNET,
        attention=[False, False, False, True],
        **settings,
    )


def _s1(*depths: int) -> dict:
    """The large classifiers: stride 1 in the last stage, SE and SiLU."""
    return _bot(*depths, strides=[1, 2, 2, 1], act='silu', gate=_SE)


@MODELS.register_module()
class BoTNet(BottleneckNet):
    """BoTNet-50 to 200, the classifiers BoTNet-S1, and timm's hybrids.

    Maps of any image size from 32 x 32 up. The position tables follow the size of the image: their
    entries about the middle for a smaller one, linear interpolation for a larger one. Tables of
    checkpoints made for another ``canvas_size`` are fitted in the same way.

    Args:
        arch: 'bot50', 'bot101', 'bot152' and 'bot200' (ReLU; ``strides=(1, 2, 2, 1)`` makes the
            BoTNet-S1 of that depth); the large classifiers 's1-59', 's1-110' and 's1-128' with
            stride 1 in the last stage, SE and SiLU (aliases 't3', 't4', and 't5', 't6', 't7', which
            differ by the size of the image); timm's 'botnet26t', 'botnet50ts', 'sebotnet33ts' and
            'eca_botnext26ts'. Or a dict, see
            :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`, with ``dim_head``,
            ``qk_ratio`` and ``scale_pos_embed`` (False in timm's variants) of the attention.
        canvas_size: Height and width of the image that the tables are made for: the paper's
            detectors see 1024 x 1024, its classifiers 224 x 224 and more.
        position: 'relative', 'absolute' or 'none'.
        content: With the term of query and key; without, attention is by position alone.
        qkv_bias: Biases of queries, keys and values.
        table_policy: What happens to tables of a file that are made for another size: 'resize', or
            'reset' to keep the initial values.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`; with
            ``shortcut_act=True`` the convolution of a shortcut is followed by an activation, as in
            distribuuuu's checkpoint and the authors' block.

    The sizes of the stages of 's1-*' are those that their names count (3 layers a block, stem and
    head). Where SE stands is not published: here behind the last norm of every block, with 1/16 of
    its channels in the middle.

    Raises:
        ValueError: An unknown variant, or settings that do not fit each other.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import BoTNet
        >>> maps = BoTNet('bot50', canvas_size=(96, 128)).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_defaults: ClassVar = _DEFAULTS
    arch_zoo: ClassVar = {
        'bot50': _bot(3, 4, 6, 3),
        'bot101': _bot(3, 4, 23, 3),
        'bot152': _bot(3, 8, 36, 3),
        'bot200': _bot(3, 24, 36, 3),
        's1-59': _s1(3, 4, 6, 6),
        's1-110': _s1(3, 4, 23, 6),
        's1-128': _s1(3, 4, 23, 12),
        'botnet26t': dict(
            _TIMM, depths=[2, 2, 2, 2], channels=_RESNET, attention=[False, False, (1,), True]
        ),
        'botnet50ts': dict(
            _TIMM,
            depths=[3, 4, 6, 3],
            channels=_RESNET,
            attention=[False, (3,), (1, 3, 5), (1,)],
            act='silu',
        ),
        'sebotnet33ts': dict(
            _TIMM,
            depths=[2, 3, 3, 2],
            channels=[256, 512, 1024, 1536],
            ratios=[0.25, 0.25, 0.25, 0.333],
            attention=[False, (2,), (2,), True],
            stem=dict(kind='tiered', channels=64, pool=False),
            act='silu',
            gate=dict(kind='se', place='mid', ratio=16),
            final=1280,
        ),
        'eca_botnext26ts': dict(
            _TIMM,
            depths=[2, 2, 2, 2],
            channels=_RESNET,
            attention=[False, False, (1,), True],
            act='silu',
            group_size=16,
            gate=dict(kind='eca', place='mid'),
            dim_head=16,
        ),
    }
    arch_aliases: ClassVar = {
        't3': 's1-59', 't4': 's1-110', 't5': 's1-128', 't6': 's1-128', 't7': 's1-128'
    }  # fmt: skip

    def __init__(
        self,
        arch: str | dict = 'bot50',
        canvas_size: tuple[int, int] = (1024, 1024),
        position: str = 'relative',
        content: bool = True,
        qkv_bias: bool = False,
        table_policy: str = 'resize',
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, **kwargs)
        if table_policy not in ('resize', 'reset'):
            raise ValueError(f"table_policy must be 'resize' or 'reset', got {table_policy!r}")
        self.canvas_size, self.table_policy = tuple(canvas_size), table_policy
        self.attention_kwargs = dict(
            position=position, content=content, qkv_bias=qkv_bias, impl=self.impl
        )
        self.build()

    def table_size(self, slot: ConvSlot) -> tuple[int, int]:
        """Rows and columns of the map under attention for an image of ``canvas_size``."""
        return tuple(-(-side // slot.reduction) for side in self.canvas_size)

    def make_attention(self, slot: ConvSlot) -> nn.Module:
        """Attention over the whole map."""
        settings = self.settings
        return BottleneckAttention(
            slot.in_channels,
            self.table_size(slot),
            slot.channels,
            slot.stride,
            settings['heads'][slot.stage],
            settings['dim_head'],
            settings['qk_ratio'],
            scale_pos_embed=settings['scale_pos_embed'],
            **self.attention_kwargs,
        )

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout, its tables brought to our sizes first.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        fitted = fit_tables(self, state)
        if self.table_policy == 'reset':
            own = self.state_dict()
            fitted.update((key, own[key]) for key in own if fitted.get(key) is not state.get(key))
        super().load_strictly(fitted, origin)
