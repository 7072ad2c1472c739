"""End-to-end graphs: from pixels to what an application uses, in one file."""

from typing import Any

from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from hybrid_mm.export.classifiers import ClassifierGraph
from hybrid_mm.export.detectors import detector_graph
from hybrid_mm.export.graphs import ExportError, Graph, Network, name_of
from hybrid_mm.export.preprocessing import InputType, Preparation, channels_of
from hybrid_mm.export.queries import Queries
from hybrid_mm.export.segmenters import segmenter_graph

__all__ = ['EndToEnd', 'whole_graph']


class EndToEnd(nn.Module):
    """A whole model: preparation and network.

    Args:
        prepare: The preparation.
        network: What follows it.
    """

    def __init__(self, prepare: Preparation, network: Network) -> None:
        super().__init__()
        self.prepare = prepare
        self.network = network

    def forward(self, image: Tensor, *settings: Tensor) -> tuple[Tensor, ...]:
        """Results of images, given the optional inputs of the network."""
        return self.network(self.prepare(image), self.size(image), *settings)

    def difference(self, found: dict[str, Tensor], image: Tensor, *settings: Tensor) -> float:
        """See :meth:`hybrid_mm.export.graphs.Network.difference`."""
        return self.network.difference(found, self.prepare(image), self.size(image), *settings)

    def size(self, image: Tensor) -> tuple[int, int]:
        """Height and width of images."""
        height, width = (image.shape[axis] for axis in self.prepare.axes)
        return height, width


def whole_graph(
    model: Any,
    size: tuple[int, int],
    batch: int | None = None,
    input_type: InputType = 'uint8',
    probabilities: bool = False,
    keeps_order: bool | None = None,
) -> Graph:
    """The end-to-end graph of a detector, segmenter or classifier.

    Args:
        model: The model, with its ``test_cfg``; it is set to eval mode.
        size: Height and width of the example image.
        batch: Number of images; by default any, if the network allows.
        input_type: See :class:`hybrid_mm.export.preprocessing.Preparation`.
        probabilities: Return the probabilities of a segmenter as well.
        keeps_order: See :class:`hybrid_mm.export.preprocessing.Preparation`.

    Raises:
        ExportError: The model has no end-to-end graph.
    """
    model = revert_sync_batchnorm(model).eval()
    if not hasattr(model, 'data_preprocessor'):
        raise ExportError(
            f'{type(model).__name__} is a backbone, without the outputs of a task; use --raw'
        )
    network: Network
    prepare = Preparation(model.data_preprocessor, input_type, keeps_order)
    if getattr(model, 'decode_head', None) is not None:
        network = segmenter_graph(model, probabilities)
    elif type(model).__name__ == 'ImageClassifier':
        network = ClassifierGraph(model)
    elif getattr(model, 'panoptic_head', None) is not None:
        network = Queries(model)
    else:
        network = detector_graph(model)
    open_batch = batch is None and network.any_batch
    example = prepare.example(size, channels_of(model), batch or (2 if open_batch else 1))
    return Graph(
        '',
        EndToEnd(prepare, network),
        {'image': example, **network.settings},
        list(network.outputs),
        {'image': prepare.axes},
        defaults=tuple(network.settings),
        any_batch=open_batch,
        least=network.least,
        name=name_of(model),
    )
