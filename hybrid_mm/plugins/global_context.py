"""Global context and non-local blocks of mmcv with initial values that stay, and a simplified one.

Sources: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (arXiv 1904.11492),
"Non-local Neural Networks" (arXiv 1711.07971). ``GeneralizedAttention`` of mmcv needs none of this:
its gate is a parameter outside of any convolution.
"""

from typing import Any

from mmcv.cnn import ContextBlock as _ContextBlock
from mmcv.cnn import NonLocal2d as _NonLocal2d
from torch import Tensor, nn

from hybrid_mm import compat
from hybrid_mm.plugins.base import follow_mode, reset_defaults
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ContextBlock(_ContextBlock):
    """mmcv's global context block, which starts as the identity in any ResNet.

    mmcv's own loses its zeros in the ``init_weights`` of a ResNet without pre-trained weights.
    Names and shapes of the parameters are the same. Maps may be channels-last.

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width is C * ratio: 1/16, or 1/4 for the strongest models.
        pooling_type: 'att' (softmax over positions) or 'avg'.
        fusion_types: Of 'channel_add' and 'channel_mul'; the latter starts by halving the map.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float,
        pooling_type: str = 'att',
        fusion_types: tuple[str, ...] = ('channel_add',),
    ) -> None:
        super().__init__(in_channels, ratio, pooling_type, fusion_types)
        compat.b16_plugins_in_turn()

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
    """mmcv's non-local block, whose initial values are those asked for in any ResNet.

    In the ``init_weights`` of a ResNet mmcv's own forgets ``std`` and ``zeros_init``, and fails
    with ``sub_sample=True``. The batch norm of ``norm_cfg`` trains also in a ResNet with
    ``norm_eval=True``. Memory: (H W)**2 numbers an image; use it in one block of stride 16, or
    with ``sub_sample=True``.

    Args:
        in_channels: Number of channels.
        std: Standard deviation of the initial projections.
        zeros_init: Start as the identity.
        **kwargs: Other arguments of mmcv's: ``sub_sample``, ``reduction``, ``use_scale``, ``mode``,
            ``conv_cfg``, ``norm_cfg``.
    """

    def __init__(
        self, in_channels: int, std: float = 0.01, zeros_init: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, std=std, zeros_init=zeros_init, **kwargs)
        self.initial = dict(std=std, zeros_init=zeros_init)
        compat.b16_plugins_in_turn()

    def init_weights(self, **kwargs: Any) -> None:
        """Called by the constructor, and last by that of the network around it."""
        if kwargs:
            super().init_weights(**kwargs)
            return
        reset_defaults(self)
        # mmcv's method knows these parts without the pooling behind them
        pooled = {n: m for n, m in self.named_children() if isinstance(m, nn.Sequential)}
        for name, part in pooled.items():
            setattr(self, name, part[0])
        super().init_weights(**self.initial)
        for name, part in pooled.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        follow_mode(self)
        return super().forward(x.contiguous())
