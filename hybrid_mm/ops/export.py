"""Export of graphs: while one is traced, operators use torch's own operators only."""

from collections.abc import Sequence

import torch

from hybrid_mm.compat.torch_api import exports

__all__ = ['exporting', 'require_fixed_size']


def exporting() -> bool:
    """Whether ``torch.export`` or an ONNX exporter traces the network.

    An exported graph runs without this package: our own operators, kernels in C and complex
    numbers stay out of it.
    """
    return torch.onnx.is_in_onnx_export() or exports()


def require_fixed_size(size: Sequence[int], operator: str) -> None:
    """Check that the size of a map is known if the network is being exported.

    Args:
        size: Height and width.
        operator: What needs to know it, for the message.

    Raises:
        ValueError: One of them is dynamic.
    """
    if exporting() and any(isinstance(n, torch.SymInt) for n in size):
        raise ValueError(
            f'{operator} is laid out for one size of the map; export it for a fixed height and '
            'width'
        )
