"""Layer normalisation of feature maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of an (N, C, H, W) map, at each position.

    Source: "Layer Normalization" (arXiv 1607.06450), as hybrid networks apply it to tokens
    (N, HW, C). Saves one copy of the input for the backward pass. Under autocast it runs in
    float32, as ``nn.LayerNorm`` does.

    The result has channels-last strides: the kernel works on channels that lie side by side, and
    the convolutions that follow keep that layout.

    Args:
        channels: Channels C.
        eps: Added to the variance.
    """

    @sized_arguments
    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Map (N, C, H, W) to the same shape; the result is multiplied by ``factor``."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if factor != 1:
            weight, bias = weight * factor, bias * factor
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, weight, bias, self.eps)
        return x.permute(0, 3, 1, 2)
