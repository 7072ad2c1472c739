"""End-to-end graphs of classifiers."""

from torch import Tensor, nn

from hybrid_mm.export.graphs import Network

__all__ = ['ClassifierGraph']


class ClassifierGraph(Network):
    """Scores of the classes, (N, classes), that sum to one.

    Args:
        model: Classifier of MMPretrain.
    """

    outputs = ('scores',)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.settings = {}
        self.model = model

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        return (self.model.head(self.model.extract_feat(x)).softmax(1),)
