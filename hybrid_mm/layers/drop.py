"""Stochastic depth."""

from collections.abc import Sequence

from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments


class DropPath(nn.Module):
    """Drop a residual branch per sample and rescale the survivors.

    Source: "Deep Networks with Stochastic Depth" (arXiv 1603.09382), per-sample variant.

    Args:
        rate: Probability in [0, 1) that the branch of a sample is dropped in training.
    """

    @sized_arguments
    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'drop path rate must lie in [0, 1), got {rate}')
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map a branch of shape (N, ...) to the same shape."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f'rate={self.rate:.3g}'


def drop_path_schedule(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Linearly growing drop-path rates, from 0 at the first block to ``rate`` at the last.

    Args:
        rate: Rate of the last block.
        depths: Number of blocks of each stage.

    Returns:
        One list of rates per stage.

    Raises:
        ValueError: A rate outside [0, 1), or a negative depth.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f'drop_path_rate must lie in [0, 1), got {rate}')
    if any(depth < 0 for depth in depths):
        raise ValueError(f'depths must not be negative, got {list(depths)}')
    last = max(sum(depths) - 1, 1)
    rates = iter(rate * i / last for i in range(sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]
