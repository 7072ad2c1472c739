"""The graphs that a model is exported as, each a module from tensors to tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from hybrid_mm.errors import UserError
from hybrid_mm.export.preprocessing import channels_of

__all__ = ['ExportError', 'Graph', 'Network', 'graphs_of', 'largest_difference', 'name_of']

_ROIS = 7  # regions in the example that is traced


class ExportError(UserError):
    """A network that cannot be exported, or whose file computes something else."""


@dataclass
class Graph:
    """A module that becomes one ONNX file.

    Attributes:
        part: Suffix of the file's name, empty for the first file.
        module: The module that is traced; it takes and returns tensors only.
        inputs: Example inputs by name.
        outputs: Names of the outputs.
        axes: Axes of each input that have any length in a file of dynamic sizes.
        defaults: Inputs that may be left out; their examples are their default values.
        any_batch: Leave the number of images open in a file of dynamic sizes, if the module can
            be traced so, else one. The example has two images then.
        least: Height and width of the images with which it is traced for any size, at least.
        name: Model and head, for messages.
    """

    part: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    axes: dict[str, tuple[int, ...]]
    defaults: tuple[str, ...] = ()
    any_batch: bool = False
    least: int = 1
    name: str = 'the graph'


class Network(nn.Module):
    """What follows the preparation of the image: the model, and what decodes its outputs.

    Attributes:
        outputs: Names of the tensors that are returned, in their order.
        settings: Default values of the optional inputs by name, in the order of the arguments.
        properties: What else the metadata of the file say, by key.
        any_batch: Whether the number of images may be left open.
        least: Height and width of the image with which a file of any size is traced, at least:
            the tracer takes a map of one row or column for one that always has one.
    """

    outputs: tuple[str, ...]
    settings: dict[str, Tensor]
    properties: dict[str, Any]
    any_batch: bool = True
    least: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.settings = {}
        self.properties = {}

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """Results of images.

        Args:
            x: Prepared images, (N, C, H', W').
            size: Height and width of the images before padding.
            settings: The optional inputs.
        """
        raise NotImplementedError

    def difference(
        self, found: dict[str, Tensor], x: Tensor, size: tuple[int, int], *settings: Tensor
    ) -> float:
        """Largest difference of results of onnxruntime from those of this network.

        Networks with outputs that may change much where numbers differ by rounding override it.

        Args:
            found: What onnxruntime returned, by name.
            x: Prepared images, as for :meth:`forward`.
            size: Height and width of the images before padding.
            settings: The optional inputs.

        Returns:
            The difference, relative to the largest number of an output.

        Raises:
            ExportError: A result has another shape.
        """
        expected = self(x, size, *settings)
        return largest_difference(dict(zip(self.outputs, expected, strict=True)), found)


def largest_difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """Largest difference over all outputs, each relative to the largest number of the expected.

    Args:
        expected: Outputs of PyTorch by name.
        found: Outputs of onnxruntime by name.

    Raises:
        ExportError: The shapes of an output differ.
    """
    worst = 0.0
    for name, a in expected.items():
        b = found[name]
        if a.shape != b.shape:
            raise ExportError(f'{name} has the shape {tuple(b.shape)} instead of {tuple(a.shape)}')
        if a.numel():
            a, b = a.double(), b.double()
            change = ((a - b).abs().max() / a.abs().max().clamp(min=1e-12)).item()
            if math.isnan(change):
                return change
            worst = max(worst, change)
    return worst


def name_of(model: nn.Module) -> str:
    """A model with its head, as messages name it: 'EncoderDecoder with FCNHead'.

    Args:
        model: A detector, segmenter, classifier, or backbone.
    """
    name = type(model).__name__
    for attribute in ('roi_head', 'panoptic_head', 'bbox_head', 'decode_head', 'head'):
        head = getattr(model, attribute, None)
        if isinstance(head, nn.Module):
            head = head[-1] if isinstance(head, nn.ModuleList) else head
            return f'{name} with {type(head).__name__}'
    return name


def graphs_of(
    model: Any, size: tuple[int, int], backbone_only: bool = False, batch: int = 1
) -> list[Graph]:
    """The graphs of a model, one per file.

    Faster and Mask R-CNN have two: from the image to the pyramid and the maps of proposals, and
    from regions and the pyramid to scores, boxes and masks. Other models have one.

    Args:
        model: Bare backbone, segmenter, classifier, one-stage detector with a dense head, or
            Faster or Mask R-CNN; it is set to eval mode.
        size: Height and width of the example image.
        backbone_only: Take the backbone of the model only.
        batch: Number of images.

    Raises:
        ExportError: The model is another one.
    """
    model = revert_sync_batchnorm(model).eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, channels_of(model), *size, generator=generator)
    one: dict[str, Any] = dict(inputs={'image': image}, axes={'image': (2, 3)}, name=name_of(model))
    if backbone_only or not hasattr(model, 'data_preprocessor'):
        backbone = model.backbone if hasattr(model, 'backbone') else model
        stages = getattr(backbone, 'out_indices', None)
        if stages is None:
            raise ExportError(f'{type(model).__name__} is not a backbone: it has no out_indices')
        one['name'] = name_of(backbone)
        return [Graph('', _Backbone(backbone), outputs=[f'map_{i}' for i in stages], **one)]
    name = type(model).__name__
    head = getattr(model, 'decode_head', None)
    if head is not None:
        if isinstance(head, nn.ModuleList) or hasattr(head, 'pixel_decoder'):
            raise ExportError(
                f'{name} with {type(head).__name__}: only heads of one map of logits are exported; '
                'use --backbone-only'
            )
        return [Graph('', _Segmenter(model), outputs=['logits'], **one)]
    if name == 'ImageClassifier':
        return [Graph('', _Classifier(model), outputs=['cls_score'], **one)]
    if getattr(model, 'roi_head', None) is not None:
        return _two_stages(model, one)
    if hasattr(getattr(model, 'bbox_head', None), 'predict_by_feat'):
        with torch.no_grad():
            found = model.bbox_head(model.extract_feat(image))
        names = ('cls_score', 'bbox_pred', 'centerness')[: len(found)]
        outputs = [f'{name}_{i}' for name in names for i in range(len(found[0]))]
        return [Graph('', _Dense(model), outputs=outputs, **one)]
    raise ExportError(
        f'{name} is not a segmenter, classifier, one-stage detector, Faster or Mask R-CNN; use '
        '--backbone-only'
    )


def example_rois(image: Tensor, number: int = _ROIS) -> Tensor:
    """Regions (number, 5) within an image, from small to large."""
    height, width = image.shape[2:]
    corner = torch.linspace(0, 0.4, number)[:, None] * torch.tensor([width, height])
    length = torch.linspace(0.05, 0.6, number)[:, None] * torch.tensor([width, height])
    return torch.cat([torch.zeros(number, 1), corner, corner + length], 1)


def _two_stages(model: Any, one: dict[str, Any]) -> list[Graph]:
    """Both graphs of Faster or Mask R-CNN; ``one`` has inputs and axes of the first."""
    from mmdet.models.roi_heads import StandardRoIHead
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    head = model.roi_head
    if type(head) is not StandardRoIHead or type(head.bbox_roi_extractor) is not SingleRoIExtractor:
        raise ExportError(
            f'{type(head).__name__}: only the heads of Faster and Mask R-CNN are exported; use '
            '--backbone-only'
        )
    with torch.no_grad():
        maps = model.extract_feat(one['inputs']['image'])
    levels = range(len(maps))
    outputs = [f'{n}_{i}' for n in ('pyramid', 'rpn_cls_score', 'rpn_bbox_pred') for i in levels]
    used = maps[: head.bbox_roi_extractor.num_inputs]
    inputs = {'rois': example_rois(one['inputs']['image'])}
    inputs |= {f'pyramid_{i}': x for i, x in enumerate(used)}
    names = ['cls_score', 'bbox_pred', *(['mask_logits'] if head.with_mask else [])]
    axes: dict[str, tuple[int, ...]] = {name: (0,) if name == 'rois' else (2, 3) for name in inputs}
    return [
        Graph('', _Proposals(model), outputs=outputs, **one),
        Graph('_rois', _Regions(model), inputs, names, axes, name=one['name']),
    ]


class _Backbone(nn.Module):
    """A backbone: its maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image))


class _Segmenter(nn.Module):
    """A segmenter: logits at the resolution of its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.decode_head(self.model.extract_feat(image))


class _Classifier(nn.Module):
    """A classifier: scores of the classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.head(self.model.extract_feat(image))


class _Dense(nn.Module):
    """A one-stage detector: outputs of its head on every level, not decoded."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model.bbox_head(self.model.extract_feat(image))
        return tuple(level for levels in outputs for level in levels)


class _Proposals(nn.Module):
    """The first stage of a two-stage detector: the pyramid and the maps of proposals."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(image)
        return (*maps, *(level for levels in self.model.rpn_head(maps) for level in levels))


class _Regions(nn.Module):
    """The second stage: heads on regions (n, 5), each (image, left, top, right, bottom)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head: Any = model.roi_head

    def forward(self, rois: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        head = self.head
        scores, boxes = head.bbox_head(_regions(head.bbox_roi_extractor, maps, rois))
        if not head.with_mask:
            return scores, boxes
        return scores, boxes, head.mask_head(_regions(head.mask_roi_extractor, maps, rois))


def _regions(extractor: Any, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Features of regions: all levels are sampled for every region, and one is selected.

    MMDetection sorts the regions by level, with shapes that depend on values, which ONNX lacks.
    """
    from torchvision.ops import roi_align

    maps = maps[: extractor.num_inputs]
    level = extractor.map_roi_levels(rois, len(maps))[:, None, None, None]
    found: Any = 0.0
    for i, (x, layer) in enumerate(zip(maps, extractor.roi_layers, strict=True)):
        sampled = roi_align(
            x,
            rois,
            layer.output_size,
            layer.spatial_scale,
            max(layer.sampling_ratio, 0),
            layer.aligned,
        )
        found = found + sampled * (level == i)
    return found
