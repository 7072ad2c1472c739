"""The convolution path of ACmix in an exported graph."""

from torch import Tensor

from hybrid_mm.ops.export import numbers
from hybrid_mm.ops.mixed_shift import reference


def mix(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    """Mix maps (N, M, d, H, W) to (N, d * n, H', W'); see the public function."""
    if x.stride(4) == 1:
        return reference.mix(x, fc, bias, weight, stride)
    # Tokens: onnxruntime moves pixels, then heads quickly, but not both at once; the product
    # between them also keeps it from joining the two.
    dim, size = x.shape[2], numbers(x.shape[3:])
    channels = x.permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2).transpose(1, 2)
    mixed = fc @ channels.unflatten(1, (-1, dim)).flatten(2)
    if bias is not None:
        mixed = mixed + bias[:, None]
    mixed = mixed.unflatten(2, (dim, -1)).transpose(1, 2).flatten(1, 2)
    return reference.shift(mixed.unflatten(2, size), weight, dim, stride)
