"""End-to-end graphs of segmenters."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.export.graphs import Network

__all__ = ['segmenter_graph']


def segmenter_graph(model: nn.Module, probabilities: bool = False) -> Network:
    """The network of a segmenter.

    Args:
        model: Segmenter of MMSegmentation.
        probabilities: Return the probabilities of the classes as well.

    Raises:
        ExportError: Its head has no end-to-end graph.
    """
    return WholeImage(model, probabilities)


class WholeImage(Network):
    """A segmenter that looks at the whole image at once: the label map, (N, H, W)."""

    def __init__(self, model: nn.Module, probabilities: bool = False) -> None:
        super().__init__()
        self.settings = {}
        self.model = model
        self.outputs = ('label_map', 'probabilities') if probabilities else ('label_map',)

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        logits = self.model.decode_head(self.model.extract_feat(x))
        aligned = self.model.align_corners
        logits = F.interpolate(logits, x.shape[2:], mode='bilinear', align_corners=aligned)
        logits = logits[:, :, : size[0], : size[1]]
        found = (logits.argmax(1).to(torch.uint8),)
        return (*found, logits.softmax(1)) if len(self.outputs) == 2 else found
