"""mmcv's global context and non-local blocks with working initial values, and a simplified one.

Sources: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (arXiv 1904.11492),
"Non-local Neural Networks" (arXiv 1711.07971). ``GeneralizedAttention`` of mmcv can be used as it
is: its gate is a parameter outside of any convolution.
"""

from typing import Any

from mmcv.cnn import ContextBlock as _ContextBlock
from mmcv.cnn import NonLocal2d as _NonLocal2d
from torch import Tensor, nn

from hybrid_mm.compat.workarounds import b16_plugins_in_turn
from hybrid_mm.plugins.base import follow_mode, reset_defaults
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ContextBlock(_ContextBlock):
    """mmcv's global context block that starts as the identity in any ResNet.

    The zeros of mmcv's own are overwritten by ``init_weights`` of a ResNet without pre-trained
    weights. Names and shapes of the parameters are the same. Maps may be channels-last.

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width is C * ratio: 1/16, or 1/4 for the strongest models.
        pooling_type: 'att' (softmax over positions) or 'avg'.
        fusion_types: 'channel_add' and 'channel_mul'; the latter initially halves the map.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float,
        pooling_type: str = 'att',
        fusion_types: tuple[str, ...] = ('channel_add',),
    ) -> None:
        super().__init__(in_channels, ratio, pooling_type, fusion_types)
        b16_plugins_in_turn()

    def init_weights(self) -> None:
        """Called last by the ``init_weights`` of the network around it."""
        reset_defaults(self)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return super().forward(x.contiguous())


@MODELS.register_module()
class SimplifiedNonLocal(ContextBlock):
    """x + W c with c the mean of x under a softmax over positions (GCNet paper, equation 3).

    Args:
        in_channels: Number of channels C.
    """

    _abbr_ = 'simplified_nonlocal_block'

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 1 / in_channels)
        self.channel_add_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.reset_parameters()


@MODELS.register_module()
class NonLocal2d(_NonLocal2d):
    """mmcv's non-local block that keeps the given initial values in any ResNet.

    In ``init_weights`` of a ResNet mmcv's own ignores ``std`` and ``zeros_init``, and fails with
    ``sub_sample=True``. The batch norm of ``norm_cfg`` trains even in a ResNet with
    ``norm_eval=True``. Memory is (H W)**2 numbers per image: use it in one block at stride 16, or
    with ``sub_sample=True``.

    Args:
        in_channels: Number of channels.
        std: Standard deviation of the initial projections.
        zeros_init: Start as the identity.
        **kwargs: Other arguments of mmcv's block: ``sub_sample``, ``reduction``, ``use_scale``,
            ``mode``, ``conv_cfg``, ``norm_cfg``.
    """

    def __init__(
        self, in_channels: int, std: float = 0.01, zeros_init: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, std=std, zeros_init=zeros_init, **kwargs)
        self.initial = dict(std=std, zeros_init=zeros_init)
        b16_plugins_in_turn()

    def init_weights(self, **kwargs: Any) -> None:
        """Called by the constructor, and last by that of the network around it."""
        if kwargs:
            super().init_weights(**kwargs)
            return
        reset_defaults(self)
        # mmcv's method expects these parts without pooling
        pooled = {n: m for n, m in self.named_children() if isinstance(m, nn.Sequential)}
        for name, part in pooled.items():
            setattr(self, name, part[0])
        super().init_weights(**self.initial)
        for name, part in pooled.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        follow_mode(self)
        if not len(x):  # mmcv's cannot tell the number of pixels; parameters have gradient 0
            return x + 0 * sum(p.sum() for p in self.parameters())
        return super().forward(x.contiguous())
