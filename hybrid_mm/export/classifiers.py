"""End-to-end graphs of classifiers."""

from typing import Any

from torch import Tensor, nn

from hybrid_mm.export.graphs import ExportError, Network

__all__ = ['ClassifierGraph']


class ClassifierGraph(Network):
    """Scores of the classes, (N, classes), that sum to one.

    Args:
        model: Classifier of MMPretrain, of one label per image.

    Raises:
        ExportError: Its head decodes its outputs in another way.
    """

    outputs = ('scores',)

    def __init__(self, model: nn.Module) -> None:
        from mmpretrain.models.heads import ClsHead

        super().__init__()
        head = model.head
        decodes = (
            getattr(type(head), 'predict', None),
            getattr(type(head), '_get_predictions', None),
        )
        if decodes != (ClsHead.predict, ClsHead._get_predictions):
            raise ExportError(
                f'{type(model).__name__} with {type(head).__name__}: only heads of one label per '
                'image (a softmax over the classes) have an end-to-end graph; use --raw'
            )
        self.model: Any = model

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        return (self.model.head(self.model.extract_feat(x)).softmax(1),)
