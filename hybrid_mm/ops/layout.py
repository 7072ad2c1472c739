"""How gradients of maps lie in memory."""

from torch import Tensor

from hybrid_mm.ops.export import exporting

__all__ = ['dense_gradient']


def dense_gradient(x: Tensor) -> Tensor:
    """The same map, (N, C, H, W), whose gradient reaches what made it as dense as the map is.

    torch's batch norm on a CPU (seen with 2.14.1) takes a map and its gradient for equally laid
    out where strides are ambiguous, as those of one image, one row or one column of pixels can be,
    and then gives a wrong gradient without a word: after ``tokens = x.flatten(2).transpose(1, 2)``
    with one image, for instance. The two views here copy nothing, unless such a gradient arrives.

    Args:
        x: Any map; one that is not contiguous, or on a GPU, is returned as it is.
    """
    if x.device.type != 'cpu' or exporting() or not x.is_contiguous():
        return x
    return x.view(-1).view(x.shape)
