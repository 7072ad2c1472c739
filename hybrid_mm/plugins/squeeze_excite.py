"""Squeeze-and-excitation (SE).

Source: "Squeeze-and-Excitation Networks" (arXiv 1709.01507), equations 2 to 4.
"""

from torch import Tensor, nn

from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.arguments import positive
from hybrid_mm.plugins.base import Plugin, activation, gate_function
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class SE(Plugin):
    """Channel gate: x * gate(W2 act(W1 mean(x))).

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width is C / ratio, rounded to a multiple of ``divisor``.
        divisor: 8 as in timm; 1 for no rounding.
        hidden_channels: The hidden width itself, instead of ``ratio`` and ``divisor``.
        bias: Biases in both layers.
        act: 'relu' or 'silu'.
        gate: 'sigmoid' or 'hard_sigmoid'.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: The ratio is not positive, or the activation or gate is unknown.
    """

    _abbr_ = 'se'

    def __init__(
        self,
        in_channels: int,
        ratio: float = 16,
        divisor: int = 8,
        hidden_channels: int | None = None,
        bias: bool = True,
        act: str = 'relu',
        gate: str = 'sigmoid',
        init_identity: bool = False,
    ) -> None:
        super().__init__(init_identity=init_identity)
        positive(self, ratio=ratio)
        hidden = hidden_channels or make_divisible(in_channels / ratio, divisor, round_limit=0.0)
        self.fc1 = nn.Conv2d(in_channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1, bias=bias)
        self.act, self.gate = activation(act, self), gate_function(gate, self)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; zeros in the last layer with ``init_identity``."""
        super().reset_parameters()
        if self.init_identity:
            for parameter in self.fc2.parameters():
                nn.init.zeros_(parameter)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        s = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * (self.gain * self.gate(s))
