"""FPN and UperNet head with recursive gated convolutions.

Status: complete; the convolution is checked number by number against the official code.

Source: HorNet (arXiv 2207.14284), section 3.3, "HorFPN".
"""

from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.necks import FPN
from mmseg.models.decode_heads import UPerHead
from torch import Tensor, nn

from hybrid_mm.layers import RecursiveGatedConv
from hybrid_mm.ops.layout import dense_gradient

__all__ = ['GatedConvModule', 'HorFPN', 'HorUPerHead']


def _config(named: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """A norm or activation as a dict, where it may be a name."""
    return dict(type=named) if isinstance(named, str) else named


class GatedConvModule(RecursiveGatedConv):
    """Recursive gated convolution, norm and activation, in place of a ``ConvModule``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        ratio: Ratio of the intermediate channels to the channels of the result.
        order: Order of the interactions.
        kernel_size: Odd size of the depthwise kernel.
        filter_size: Size of the global filter that replaces the kernel, or None.
        project: Whether to end with a 1 x 1 convolution.
        norm_cfg: Norm after the convolution, a dict or a name of MMCV, or None.
        act_cfg: Activation after the norm, a dict or a name of MMCV, or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: int = 1,
        order: int = 2,
        kernel_size: int = 7,
        filter_size: tuple[int, int] | None = None,
        project: bool = True,
        norm_cfg: str | dict | None = None,
        act_cfg: str | dict | None = None,
    ) -> None:
        norm_cfg, act_cfg = _config(norm_cfg), _config(act_cfg)
        channels = int(out_channels * ratio)
        super().__init__(
            in_channels,
            channels,
            out_channels if project else None,
            order,
            kernel_size,
            filter_size=filter_size,
        )
        width = out_channels if project else channels
        self.norm = build_norm_layer(norm_cfg, width)[1] if norm_cfg else nn.Identity()
        self.act = build_activation_layer(act_cfg) if act_cfg else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), contiguous for RoIAlign."""
        return dense_gradient(self.act(self.norm(super().forward(x).contiguous())))


class HorFPN(FPN):
    """MMDetection's FPN with gated convolutions of order 2 instead of 3 x 3 ones on merged maps.

    Args:
        *args: See MMDetection's ``FPN``.
        kernel_size: Odd size of the depthwise kernels.
        filter_size: Size of the global filters that replace them, or None.
        norm_cfg: Norm of the convolutions as in MMDetection's ``FPN``, or its type; None for none.
        act_cfg: Activation of the convolutions, or its type; None for none.
        **kwargs: See MMDetection's ``FPN``.
    """

    def __init__(
        self,
        *args,
        kernel_size: int = 7,
        filter_size: tuple[int, int] | None = None,
        norm_cfg: str | dict | None = None,
        act_cfg: str | dict | None = None,
        **kwargs,
    ) -> None:
        norm_cfg, act_cfg = _config(norm_cfg), _config(act_cfg)
        super().__init__(*args, norm_cfg=norm_cfg, act_cfg=act_cfg, **kwargs)
        settings = dict(
            kernel_size=kernel_size, filter_size=filter_size, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        for i, conv in enumerate(self.fpn_convs):
            gated = GatedConvModule(self.out_channels, self.out_channels, **settings)
            merged = i < len(self.lateral_convs)
            self.fpn_convs[i] = gated if merged else nn.Sequential(conv, gated)


class HorUPerHead(UPerHead):
    """MMSegmentation's UperNet head with a gated convolution of order 2 as the last fusion.

    Args:
        kernel_size: Odd size of the depthwise kernel.
        filter_size: Size of the global filter that replaces it, or None.
        **kwargs: See MMSegmentation's ``UPerHead``.
    """

    def __init__(
        self, kernel_size: int = 7, filter_size: tuple[int, int] | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.fpn_bottleneck = GatedConvModule(
            len(self.in_channels) * self.channels,
            self.channels,
            kernel_size=kernel_size,
            filter_size=filter_size,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
