"""Initial values of weights that torch has no function for."""

from torch import Tensor, nn


def lecun_normal_(weight: Tensor) -> Tensor:
    """Fill with a normal of variance 1 / fan-in, cut at two standard deviations.

    The default of JAX and TensorFlow ("variance scaling"); fan-in is the size of ``weight[0]``.

    Args:
        weight: Weight (C_out, C_in, ...), changed in place.
    """
    # a standard normal cut at two has the standard deviation 0.8796
    std = weight[0].numel() ** -0.5 / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
