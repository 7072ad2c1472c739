"""Gather-excite (GE).

Source: "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks"
(arXiv 1810.12348), section 3, and timm's implementation.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.arguments import positive
from hybrid_mm.plugins.base import (
    Plugin,
    activation,
    apply_norm,
    gate_function,
)
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class GatherExcite(Plugin):
    """x * gate(resize(mlp(gather(x)))) with nearest-neighbour resizing to the size of x.

    The paper's GE-theta- is ``learned=False, mlp=False``, GE-theta ``learned=True, mlp=False`` and
    GE-theta+ ``learned=True, mlp=True``.

    Args:
        in_channels: Number of channels C.
        extent: Side e of the region that is gathered, a power of 2, or 0 for the whole map.
        learned: Gather by log2(e) depthwise 3x3 convolutions of stride 2 with batch norm (over the
            whole map: by one depthwise convolution), instead of by the mean over 2e - 1 positions.
        mlp: Add two 1x1 convolutions.
        ratio: Their hidden width is C / ratio, rounded to a multiple of ``divisor``.
        divisor: See ``ratio``.
        hidden_channels: The hidden width itself, instead of ``ratio`` and ``divisor``.
        map_size: Height and width of the maps, for ``extent=0, learned=True`` only. Such a module
            works for this size only, so not in detection.
        padded: Let that convolution keep the size of the map, as in timm; in the paper it gives
            one value per channel.
        act: Activation between the layers: 'relu' or 'silu'.
        gate: 'sigmoid' or 'hard_sigmoid'.
        norm_cfg: Norm after the depthwise convolutions.
        norm_eval: See :class:`~hybrid_mm.plugins.base.Plugin`.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: The extent is not a power of 2, ``map_size`` is missing, or an option does not
            apply to the chosen form.
    """

    _abbr_ = 'ge'

    def __init__(
        self,
        in_channels: int,
        extent: int = 4,
        learned: bool = True,
        mlp: bool = False,
        ratio: float = 16,
        divisor: int = 1,
        hidden_channels: int | None = None,
        map_size: tuple[int, int] | int | None = None,
        padded: bool = False,
        act: str = 'relu',
        gate: str = 'sigmoid',
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        super().__init__(norm_cfg, norm_eval, init_identity)
        if extent and (extent < 2 or extent & (extent - 1)):
            raise ValueError(f'GatherExcite: extent must be 0 or a power of 2, got {extent}')
        if init_identity and not (learned or mlp):
            raise ValueError('GatherExcite: init_identity needs parameters (learned or mlp)')
        if (learned and extent == 0) != (map_size is not None):
            raise ValueError(
                'GatherExcite: map_size is needed for extent=0, learned=True and for nothing else, '
                f'got extent={extent}, learned={learned}, map_size={map_size}'
            )
        self.extent = extent
        self.act, self.gate = activation(act, self), gate_function(gate, self)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        if learned:
            if extent:
                shapes = [dict(kernel_size=3, stride=2, padding=1)] * (extent.bit_length() - 1)
            else:
                size = (map_size, map_size) if isinstance(map_size, int) else tuple(map_size)
                padding = [(k - 1) // 2 if padded else 0 for k in size]
                shapes = [dict(kernel_size=size, padding=padding)]
            self.convs.extend(
                nn.Conv2d(in_channels, in_channels, groups=in_channels, bias=False, **shape)
                for shape in shapes
            )
            self.norms.extend(self.build_norm(in_channels) for _ in shapes)
        self.mlp: nn.Module | None = None
        if mlp:
            positive(self, ratio=ratio)
            width = make_divisible(in_channels / ratio, divisor, round_limit=0.0)
            hidden = hidden_channels or width
            fc1, fc2 = nn.Conv2d(in_channels, hidden, 1), nn.Conv2d(hidden, in_channels, 1)
            self.mlp = nn.ModuleDict(OrderedDict(fc1=fc1, fc2=fc2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; zeros in the last layer with ``init_identity``."""
        super().reset_parameters()
        if self.init_identity:
            last = self.norms[-1] if self.mlp is None else self.mlp['fc2']
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def gather(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.convs:
            for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
                x = apply_norm(norm, conv(self.act(x) if i else x))
            return x
        if self.extent == 0:
            return x.mean((2, 3), keepdim=True)
        e = self.extent
        return F.avg_pool2d(x, 2 * e - 1, e, e - 1, count_include_pad=False)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = self.gather(x)
        if self.mlp is not None:
            y = self.mlp['fc2'](self.act(self.mlp['fc1'](y)))
        y = self.gain * self.gate(y)
        return x * (y if y.shape[2:] == (1, 1) else F.interpolate(y, size=x.shape[2:]))
