"""Parameters and multiply-adds of a backbone or of a whole model.

Convolutions, linear layers and matrix products (including scaled dot-product attention) are
counted in multiply-adds by torch's ``FlopCounterMode``, from shapes alone: the forward pass runs on
the meta device and computes nothing. Biases, normalisation, activations, elementwise products,
interpolation and NMS are not counted.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from hybrid_mm.compat.torch_api import flop_counter
from hybrid_mm.errors import UserError
from hybrid_mm.ops import (  # noqa: F401  registers the operators that are counted
    decomposed_attention,
    depthwise_convolution,
    evolving_attention,
    ghost_attention,
    grid_convolution,
    mixed_shift,
    vector_attention,
)
from hybrid_mm.ops.fusing import fused_despite_hooks
from hybrid_mm.ops.local_attention.pattern import Pattern

__all__ = ['Row', 'complexity', 'count']

BOX_ROIS, MASK_ROIS = 1000, 100


class Row(NamedTuple):
    """Figures of one module: its dotted name, parameters and multiply-adds.

    Attributes:
        name: Dotted name of the module; empty for the whole model.
        params: Number of parameters.
        macs: Multiply-adds for one input.
    """

    name: str
    params: int
    macs: int


def learns_proposals(model: nn.Module) -> bool:
    """Whether the proposals of a detector are weights, as those of Sparse R-CNN."""
    return hasattr(getattr(model, 'rpn_head', None), 'num_proposals')


class _Inference(nn.Module):
    """The forward pass that is counted: without data samples and NMS."""

    def __init__(self, model: nn.Module, mode: str = 'tensor'):
        super().__init__()
        self.model, self.mode = model, mode

    def forward(self, x: Tensor):
        model = self.model
        if getattr(model, 'with_roi_head', False) and self.mode == 'tensor':
            return self._two_stage(x)
        if hasattr(model, 'data_preprocessor'):  # a model of MMEngine, not a bare network
            size = tuple(x.shape[-2:])
            meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
            meta['scale_factor'] = (1.0, 1.0)
            samples = [BaseDataElement(metainfo=meta)]
            head = getattr(model, 'decode_head', None)
            if hasattr(head, 'pixel_decoder'):  # Mask2Former of MMSegmentation, which asks for them
                return head(model.extract_feat(x), samples)
            return model(x, samples, mode=self.mode)
        return model(x)

    def _two_stage(self, x: Tensor) -> None:
        """RPN on every level, then the heads on a fixed number of RoIs per stage."""
        model, roi_head = self.model, self.model.roi_head
        feats = model.extract_feat(x)
        if model.with_rpn:
            model.rpn_head(feats)
        self._head(x, roi_head.bbox_head, roi_head.bbox_roi_extractor, BOX_ROIS)
        if roi_head.with_mask:
            extractor = roi_head.mask_roi_extractor or roi_head.bbox_roi_extractor
            self._head(x, roi_head.mask_head, extractor, MASK_ROIS)

    def _head(self, x: Tensor, head: nn.Module, extractor: nn.Module, rois: int) -> None:
        if isinstance(head, nn.ModuleList):  # the stages of a cascade
            for stage, stage_extractor in zip(head, extractor, strict=True):
                self._head(x, stage, stage_extractor, rois)
            return
        size = extractor.roi_layers[0].output_size
        feats = x.new_empty(rois, extractor.out_channels, *size)
        if self.model.roi_head.with_shared_head:
            feats = self.model.roi_head.shared_head(feats)
        head(feats)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _plain_deformable(model: nn.Module) -> Iterator[None]:
    """Run deformable convolutions, which the meta device lacks, without their sampling."""

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        module.conv_offset(x)
        settings = module.stride, module.padding, module.dilation, module.groups
        return F.conv2d(x, module.weight, getattr(module, 'bias', None), *settings)

    parts = ('conv_offset', 'groups', 'padding', 'dilation')
    found = [m for m in model.modules() if all(hasattr(m, part) for part in parts)]
    for module in found:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in found:
            del module.forward


def count(model: nn.Module, shape: tuple[int, ...]) -> list[Row]:
    """Count parameters and multiply-adds of every module for one image.

    Two-stage detectors are counted with 1000 RoIs per box head and 100 per mask head, as
    MMDetection 2.x did. Heads that are used in training only (auxiliary heads of segmenters) have
    0 multiply-adds. Operations of methods other than ``forward`` outside of child modules are part
    of the total only.

    Args:
        model: Backbone (takes an image batch), or detector, segmenter or classifier.
        shape: (H, W) or (C, H, W) of the image; C is 3 by default.

    Returns:
        One row per module, in the order of ``model.named_modules()``; the first, with an empty
        name, is the whole model.

    Raises:
        ValueError: ``shape`` has another length or a size below 1.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f'shape must be (H, W) or (C, H, W), got {tuple(shape)}')
    channels, height, width = (3, *shape)[-3:]
    shape = (1, channels, height, width)
    with _evaluating(model), _plain_deformable(model), torch.no_grad():
        flops = _count_somehow(model, shape)
    modules = dict(model.named_modules())
    macs, inside = {}, Counter()  # of a module, and of its children together
    for name in reversed(modules):
        counted = flops.get('.'.join(('_Inference.model', name)), 0) // 2
        macs[name] = max(counted, inside[name])  # its children may be called and itself not
        if name:
            inside[name.rpartition('.')[0]] += macs[name]
    macs[''] = flops['Global'] // 2
    return [
        Row(name, sum(p.numel() for p in module.parameters()), macs[name])
        for name, module in modules.items()
    ]


def _count_somehow(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Count from shapes alone, or else on zeros, or else while predicting on zeros.

    The second is for networks whose values decide what is computed, as in the masked attention of
    Mask2Former, the third for detectors that compute nothing without proposals, as Sparse R-CNN.
    """
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    zeros = torch.zeros(shape, device=device)
    ways: list[Callable[[], dict[str, int]]] = [
        lambda: _count_on_meta(_Inference(model), shape),
        lambda: _count(_Inference(model), zeros),
    ]
    if hasattr(model, 'data_preprocessor'):
        ways.append(lambda: _count(_Inference(model, 'predict'), zeros))
    refusal: Exception | None = None
    for way in ways:
        try:
            return way()
        except UserError:
            raise
        except Exception as error:  # of a foreign model
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _count_on_meta(wrapper: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Count on a copy: a network may keep what it computes, and could not be used afterwards."""
    memo: dict[int, Any] = {}
    for tensor in (*wrapper.parameters(), *wrapper.buffers()):
        meta = tensor.detach().to('meta')
        memo[id(tensor)] = (
            nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta
        )
    return _count(copy.deepcopy(wrapper, memo), torch.empty(shape, device='meta'))


def _attention(q, k, v, bias, rel_h, rel_w, scale, pattern, *_, **__) -> int:
    """Operations of local attention, from shapes: the keys that a query attends to, not tiles."""
    rows, columns = (int(axis.count.sum()) for axis in Pattern.from_ints(pattern).axes(*k[2:4]))
    n, heads, height, width, dim = q
    products = rows * columns * (dim + v[-1])
    products += rows * width * dim * bool(rel_h) + columns * height * dim * bool(rel_w)
    return 2 * n * heads * products


def _decomposed_attention(q, k, v, *_, **__) -> int:
    """Operations of attention with decomposed positions: two products, and one per axis."""
    n, heads, height, width, dim = q
    rows, columns = k[2:4]
    each = rows * columns * (dim + v[-1]) + (rows + columns) * dim
    return 2 * n * heads * height * width * each


def _aggregation(weights, values, *_, **__) -> int:
    """Operations of SAN's aggregation: a sum over the taps for every channel of a pixel."""
    n, _, taps, height, width = weights
    return 2 * n * values[1] * taps * height * width


def _ghost_attention(hidden, v, weight, bias, heads, kernel_size, *_, **__) -> int:
    """Operations of ELSA: a 1x1 convolution for the weights, and the sum over its taps."""
    n, channels, height, width = v
    return 2 * n * height * width * (math.prod(weight) + channels * kernel_size**2)


def _mix_and_shift(x, fc, bias, weight, stride, **_) -> int:
    """Operations of ACmix's convolution path: the FC, and k^2 taps for every mixed map."""
    n, maps, dim, height, width = x
    outputs, taps, kernel = weight[1:4]
    sums = math.ceil(height / stride) * math.ceil(width / stride)
    return 2 * n * dim * taps * (height * width * maps + sums * outputs * kernel**2)


def _evolution(q, k, v, row, column, previous, weight, *_, **__) -> int:
    """Operations of evolving attention: two products, and a convolution of the logits."""
    n, heads, tokens, dim = q
    convolution = 9 * heads if weight else 0
    return 2 * n * heads * tokens**2 * (dim + v[-1] + convolution)


def _grid_convolution(x, weight, *_, **__) -> int:
    """Operations of a depthwise convolution with shared taps: one product per shared weight."""
    n, _, height, width = x
    return 2 * n * height * width * math.prod(weight)


FORMULAS = {
    torch.ops.hybrid_mm.ghost_attention: _ghost_attention,
    torch.ops.hybrid_mm.evolving_attention: _evolution,
    torch.ops.hybrid_mm.grid_convolution: _grid_convolution,
    torch.ops.hybrid_mm.depthwise_convolution: _grid_convolution,
    torch.ops.hybrid_mm.mix_and_shift: _mix_and_shift,
    torch.ops.hybrid_mm.tiled_attention: _attention,
    torch.ops.hybrid_mm.triton_attention: _attention,
    torch.ops.hybrid_mm.decomposed_attention: _decomposed_attention,
    torch.ops.hybrid_mm.aggregate_taps: _aggregation,
}


def _count(forward: nn.Module, image: Tensor) -> dict[str, int]:
    """Count floating-point operations (two per multiply-add) by the name of the module."""
    # it has hooks on all modules
    with fused_despite_hooks(), flop_counter(forward, FORMULAS) as counter:
        forward(image)
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def complexity(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Total parameters and multiply-adds of a model; see :func:`count`.

    Args:
        model: The model.
        shape: (H, W) or (C, H, W) of the image.
    """
    total = count(model, shape)[0]
    return total.params, total.macs
