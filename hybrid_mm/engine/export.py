"""Networks as ONNX files, compared with onnxruntime number by number."""

import contextlib
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.engine.cli import UserError

TOLERANCE = 1e-4
"""Largest difference that counts as rounding, relative to the largest number of an output."""
_ROIS = 7  # of the example that is traced


class ExportError(UserError):
    """A network cannot be exported, or its file computes something else. The text says why."""


@dataclass
class Graph:
    """What becomes one ONNX file.

    Attributes:
        part: Suffix of the file's name, empty for the first.
        module: What is traced; takes and returns tensors only.
        inputs: Example by name.
        outputs: Names of the outputs.
        axes: Dynamic axes of each input, if sizes are to be dynamic.
    """

    part: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    axes: dict[str, tuple[int, ...]]


class _Backbone(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image))


class _Segmenter(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.decode_head(self.model.extract_feat(image))


class _Classifier(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.head(self.model.extract_feat(image))


class _Dense(nn.Module):
    """A one-stage detector, before its boxes are decoded."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.model.bbox_head(self.model.extract_feat(image))
        return tuple(level for kind in found for level in kind)


class _Proposals(nn.Module):
    """The first stage of a two-stage detector: the pyramid, and the maps of proposals."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(image)
        return (*maps, *(level for kind in self.model.rpn_head(maps) for level in kind))


class _Regions(nn.Module):
    """The second stage: heads on regions (n, 5): number of the image, left, top, right, bottom."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.head = model.roi_head

    def forward(self, rois: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        head = self.head
        scores, boxes = head.bbox_head(_regions(head.bbox_roi_extractor, maps, rois))
        if not head.with_mask:
            return scores, boxes
        return scores, boxes, head.mask_head(_regions(head.mask_roi_extractor, maps, rois))


def _regions(extractor: nn.Module, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Features of regions; every level is sampled for all, and the right one is taken.

    MMDetection sorts the regions by level, with shapes that depend on the numbers.
    """
    from torchvision.ops import roi_align

    maps = maps[: extractor.num_inputs]
    level = extractor.map_roi_levels(rois, len(maps))[:, None, None, None]
    found: Tensor | float = 0.0
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


def graphs(
    model: nn.Module, size: tuple[int, int], backbone_only: bool = False, batch: int = 1
) -> list[Graph]:
    """The files that a model is written to.

    Args:
        model: Bare backbone, segmenter, classifier, one-stage detector with a dense head, or
            Faster or Mask R-CNN; set to eval mode. The latter have two: image to pyramid and maps
            of proposals, and regions and pyramid to scores, boxes and masks.
        size: Height and width of the image.
        backbone_only: Export the backbone of a model alone.
        batch: Images.

    Raises:
        ExportError: Other models.
    """
    model = revert_sync_batchnorm(model).eval()
    image = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    one = dict(inputs={'image': image}, axes={'image': (2, 3)})
    if backbone_only or not hasattr(model, 'data_preprocessor'):
        backbone = model.backbone if hasattr(model, 'backbone') else model
        stages = getattr(backbone, 'out_indices', None)
        if stages is None:
            raise ExportError(f'{type(model).__name__} has no out_indices: no backbone')
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
            kinds = model.bbox_head(model.extract_feat(image))
        names = ('cls_score', 'bbox_pred', 'centerness')[: len(kinds)]
        outputs = [f'{name}_{i}' for name in names for i in range(len(kinds[0]))]
        return [Graph('', _Dense(model), outputs=outputs, **one)]
    raise ExportError(
        f'{name} is no segmenter, classifier, one-stage detector, Faster or Mask R-CNN; use '
        '--backbone-only'
    )


def _two_stages(model: nn.Module, one: dict) -> list[Graph]:
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
    axes = {name: (0,) if name == 'rois' else (2, 3) for name in inputs}
    return [
        Graph('', _Proposals(model), outputs=outputs, **one),
        Graph('_rois', _Regions(model), inputs, names, axes),
    ]


def example_rois(image: Tensor, number: int = _ROIS) -> Tensor:
    """Regions (number, 5) within an image, from small to the whole."""
    height, width = image.shape[2:]
    corner = torch.linspace(0, 0.4, number)[:, None] * torch.tensor([width, height])
    length = torch.linspace(0.05, 0.6, number)[:, None] * torch.tensor([width, height])
    return torch.cat([torch.zeros(number, 1), corner, corner + length], 1)


def export(graph: Graph, path: Path, dynamic: bool = False, properties: dict | None = None) -> None:
    """Write a graph to an ONNX file, weights included.

    Args:
        graph: What is written.
        path: File.
        dynamic: Leave height and width (and the number of regions) open.
        properties: Strings by name that the file carries as its metadata.

    Raises:
        ExportError: The exporter cannot; or onnx and onnxscript are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f'{error.name} is not installed; pip install "hybrid-mm[export]"'
        ) from error
    shapes = None
    if dynamic:
        dims = {k: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for k, axes in graph.axes.items()}
        names = list(graph.inputs)
        shapes = tuple(dims[name] for name in names)
        if names[0] == 'rois':  # forward(rois, *maps)
            shapes = (shapes[0], shapes[1:])
    try:
        with _quiet(), _open_sizes(graph.module), torch.no_grad():
            # given a module, the exporter would try other ways to trace it where this one fails,
            # for minutes, one of which fixes sizes without a word
            traced = torch.export.export(
                graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False
            )
            program = torch.onnx.export(
                traced,
                (),
                None,
                dynamo=True,
                verbose=False,
                input_names=list(graph.inputs),
                output_names=graph.outputs,
            )
    except Exception as error:  # of the exporter, onnxscript or the network
        raise ExportError(f'cannot be exported: {reason(error)}') from error
    proto = program.model_proto
    onnx.helper.set_model_props(proto, properties or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(path))


def difference(graph: Graph, path: Path, inputs: dict[str, Tensor] | None = None) -> float:
    """Largest difference between onnxruntime and PyTorch, relative to the largest of an output.

    Args:
        graph: What was exported.
        path: Its file.
        inputs: By name; by default those that were traced.

    Raises:
        ExportError: onnxruntime cannot run the file, or returns other shapes.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            'onnxruntime is not installed; pip install "hybrid-mm[export]"'
        ) from error
    inputs = graph.inputs if inputs is None else inputs
    with torch.no_grad():
        expected = graph.module(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else expected
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])
        found = session.run(graph.outputs, {k: v.numpy() for k, v in inputs.items()})
    except Exception as error:
        raise ExportError(f'onnxruntime cannot run it: {reason(error)}') from error
    worst = 0.0
    for name, a, b in zip(graph.outputs, expected, found, strict=True):
        if tuple(a.shape) != b.shape:
            raise ExportError(f'{name} has the shape {b.shape} instead of {tuple(a.shape)}')
        scale = a.abs().max().clamp(min=1e-12)
        worst = max(worst, ((a - torch.from_numpy(b)).abs().max() / scale).item())
    return worst


def check(graph: Graph, path: Path, others: Iterable[dict[str, Tensor]] = ()) -> float:
    """Compare a file with PyTorch on the traced input and others.

    Returns:
        The largest difference.

    Raises:
        ExportError: It is more than rounding, ``TOLERANCE``.
    """
    worst = 0.0
    for inputs in (graph.inputs, *others):
        found = difference(graph, path, inputs)
        if not found <= TOLERANCE:
            sizes = ', '.join('x'.join(map(str, x.shape)) for x in inputs.values())
            raise ExportError(
                f'differs by {found:.1e} from PyTorch with inputs of {sizes}; {TOLERANCE:.0e} is '
                'allowed'
            )
        worst = max(worst, found)
    return worst


def other_sizes(
    model: nn.Module, size: tuple[int, int], part: str, **settings
) -> Iterator[dict[str, Tensor]]:
    """Inputs of other sizes than the traced one, for files with dynamic sizes.

    Args:
        model: As for :func:`graphs`.
        size: Height and width that were traced.
        part: Of the graph.
        settings: Of :func:`graphs`.
    """
    height, width = size
    for other in ((width, height), (height + 33, width + 35), (-(-height // 32) * 32,) * 2):
        graph = next(g for g in graphs(model, other, **settings) if g.part == part)
        if 'rois' in graph.inputs:
            image = torch.empty(1, 3, *other)
            graph.inputs['rois'] = example_rois(image, other[0] % 5 + 2)
        yield graph.inputs


def traced_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size at which a graph of dynamic sizes is traced: near this one, and divided by nothing.

    Where a window divides the traced size, the tracer would take that for a property of all.
    """
    return size[0] | 1, (size[1] | 1) + 2


def reason(error: BaseException) -> str:
    """What lies behind an exporter's exception, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r'\x1b\[\d*(;\d+)*m', '', str(error))
    operator = re.search(r'No ONNX function found for <OpOverload\(op=\'([\w.:]+)\'', text)
    operator = operator or re.search(r'Error when translating node.*?torch\.ops\.([\w.]+)\(', text)
    if operator:
        return f'the exporter does not know the operator {operator[1]}'
    lines = [line.strip() for line in text.split('\n') if line.strip()] or [type(error).__name__]
    return ' '.join(lines)[:200]


def _average_pool(length: int, parts: int, like: Tensor) -> Tensor:
    """Matrix (parts, length) of the means that ``adaptive_avg_pool`` takes along an axis."""
    part = torch.arange(parts, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)
    begin, end = part * length // parts, ((part + 1) * length + parts - 1) // parts
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _pool(module: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    size = module.output_size
    rows, columns = (size, size) if isinstance(size, int) else size
    return _average_pool(x.shape[2], rows, x) @ x @ _average_pool(x.shape[3], columns, x).t()


def _upsample(module: nn.Module, factor: int, x: Tensor) -> Tensor:
    size = [length * factor for length in x.shape[2:]]
    return F.interpolate(x, size, mode=module.mode, align_corners=module.align_corners)


@contextlib.contextmanager
def _open_sizes(model: nn.Module) -> Iterator[None]:
    """Context in which modules of the OpenMMLab packages do not fix the size of their maps.

    ``int(size * 2.0)`` of MMSegmentation's ``Upsample`` would make a constant of the size, and
    adaptive pooling is exported for one size only.
    """
    changed = []
    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.forward = functools.partial(_pool, module)
            changed.append(module)
        elif type(module).__name__ == 'Upsample' and module.size is None:
            factor = module.scale_factor
            if isinstance(factor, float) and factor.is_integer():
                module.forward = functools.partial(_upsample, module, int(factor))
                changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's own reports."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
