"""End-to-end graphs of detectors."""

from torch import nn

from hybrid_mm.export.graphs import ExportError, Network

__all__ = ['detector_graph']


def detector_graph(model: nn.Module) -> Network:
    """The network of a detector.

    Args:
        model: Detector of MMDetection.

    Raises:
        ExportError: Its head has no end-to-end graph.
    """
    raise ExportError(f'{type(model).__name__} has no end-to-end graph; use --raw')
