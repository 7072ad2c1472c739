"""Counters of FLOPs of other packages that trace: fvcore and MMEngine.

Both know torch's own products only. :func:`count_by_tracing` lets our operators stay operators in
the graph, with a formula each, so that the figures are those of ``tools/complexity.py``.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.analysis.complexity import FORMULAS
from hybrid_mm.ops.export import with_our_operators

__all__ = ['count_by_tracing', 'op_handles']

Handle = Callable[[list[Any], list[Any]], float]

# what tools/complexity.py leaves out
_NOT_COUNTED = (
    *('batch_norm', 'layer_norm', 'group_norm', 'instance_norm', 'native_layer_norm'),
    *('upsample_nearest2d', 'upsample_bilinear2d', 'adaptive_avg_pool2d', 'grid_sampler'),
)


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _argument(value: Any) -> Any:
    """A shape for a tensor, else the number, string or list."""
    if value.isCompleteTensor():
        return value.type().sizes()
    if value.node().kind() == 'prim::ListConstruct':
        return [_argument(item) for item in value.node().inputs()]
    return value.toIValue()


def _of_operator(formula: Any) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> float:
        return formula(*map(_argument, inputs)) // 2

    return handle


def _nothing(inputs: list[Any], outputs: list[Any]) -> float:
    return 0


def _fused_attention(inputs: list[Any], outputs: list[Any]) -> float:
    q, k, v = map(_shape, inputs[:3])
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _added_product(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _deformable(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(outputs[0])) * math.prod(_shape(inputs[1])[1:])


def op_handles() -> dict[str, Handle]:
    """Handles for ``set_op_handle`` of fvcore's ``FlopCountAnalysis`` and MMEngine's.

    Those of our operators, of products of torch that both packages overlook, and zero for what
    ``tools/complexity.py`` does not count.
    """
    handles: dict[str, Handle] = {f'aten::{name}': _nothing for name in _NOT_COUNTED}
    handles |= {
        'aten::scaled_dot_product_attention': _fused_attention,
        'aten::baddbmm': _added_product,
        'torchvision::deform_conv2d': _deformable,
    }
    for operator, formula in FORMULAS.items():
        handles[f'hybrid_mm::{operator.__name__}'] = _of_operator(formula)
    return handles


def count_by_tracing(analysis: Callable[..., Any], model: nn.Module, image: Tensor) -> Any:
    """Count with fvcore's ``FlopCountAnalysis`` or MMEngine's ``FlopAnalyzer``.

    Args:
        analysis: The class.
        model: A network of images, in eval mode.
        image: Its input, (N, C, H, W).

    Returns:
        The analysis, already counted: ``total()``, ``by_module()`` and the rest work. FLOPs are
        multiply-adds, as ``tools/complexity.py`` counts them.

    Example:
        >>> from mmengine.analysis import FlopAnalyzer
        >>> count_by_tracing(FlopAnalyzer, network, torch.rand(1, 3, 224, 224)).total()
    """
    found = analysis(model, image).set_op_handle(**op_handles())
    with torch.no_grad(), with_our_operators():
        found.total()
    return found
