"""RetinaNet's head with stand-alone self-attention in place of its convolutions.

Status: complete; the authors published no code, its operator is checked in plugins.

Source: "Stand-Alone Self-Attention in Vision Models" (arXiv 1906.05909), appendix A.3.
"""

from collections import OrderedDict
from typing import Any

from mmcv.cnn import build_conv_layer
from mmdet.models.dense_heads import RetinaSepBNHead
from mmengine.model import bias_init_with_prob, normal_init
from torch import nn

__all__ = ['SASARetinaHead']


class SASARetinaHead(RetinaSepBNHead):
    """Attention for all 3x3 convolutions, of the towers and of the last layers.

    The last layers are attention of the width of the towers and a 1x1 convolution, which mixes its
    heads, to scores and boxes. Value projections start as N(0, 0.01).

    Args:
        *args: See ``RetinaSepBNHead``.
        window: Window of the attention.
        heads: Number of heads.
        **kwargs: See ``RetinaSepBNHead``.
    """

    def __init__(self, *args: Any, window: int = 7, heads: int = 8, **kwargs: Any) -> None:
        conv_cfg = dict(type='hybrid_mm.SASAConv2d', window=window, heads=heads)
        super().__init__(*args, conv_cfg=conv_cfg, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        for name in ('retina_cls', 'retina_reg'):
            last = getattr(self, name)
            width = last.in_channels
            attn = build_conv_layer(self.conv_cfg, width, width, 3, padding=1, bias=False)
            conv = nn.Conv2d(width, last.out_channels, 1)
            setattr(self, name, nn.Sequential(OrderedDict(attn=attn, conv=conv)))

    def init_weights(self) -> None:
        """Set the initial values; scores start at 0.01."""
        super().init_weights()
        for name, parameter in self.named_parameters():
            if name.endswith('value_conv.weight'):
                nn.init.normal_(parameter, std=0.01)
        normal_init(self.retina_cls.conv, std=0.01, bias=bias_init_with_prob(0.01))
        normal_init(self.retina_reg.conv, std=0.01)
