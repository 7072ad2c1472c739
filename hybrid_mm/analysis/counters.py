"""Counters of other packages: fvcore's and MMEngine's, which trace a network, and ptflops.

They know torch's own operators only. ``hybrid_mm.compat`` has them count networks of this package
within :func:`counted`: our operators stay in the graph, with a formula each, so that the figures
are those of ``tools/complexity.py``.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision  # noqa: F401  its import cannot be traced
from torch.utils._pytree import tree_map_only

from hybrid_mm.analysis.complexity import FORMULAS
from hybrid_mm.compat.torch_api import flop_formulas
from hybrid_mm.ops.export import with_our_operators
from hybrid_mm.ops.fusing import fused_despite_hooks

__all__ = ['counted', 'op_handles', 'ptflops_hooks']

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


def _product(inputs: list[Any], outputs: list[Any]) -> float:
    """Theirs overlooks batches that only the second factor has."""
    return math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


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
        'aten::matmul': _product,
        'torchvision::deform_conv2d': _deformable,
    }
    for operator, formula in FORMULAS.items():
        handles[f'hybrid_mm::{operator.__name__}'] = _of_operator(formula)
    return handles


def _activation_handles() -> dict[str, Handle]:
    """Handles for the counters of activations: the results of our operators."""

    def handle(inputs: list[Any], outputs: list[Any]) -> float:
        return sum(math.prod(_shape(output)) for output in outputs)

    return {f'hybrid_mm::{operator.__name__}': handle for operator in FORMULAS}


def ptflops_hooks() -> dict[Any, Callable[[tuple, tuple], int]]:
    """Formulas of all operators that ``tools/complexity.py`` counts, for ptflops.

    They are for ``custom_modules_hooks`` of its ``get_model_complexity_info`` with
    ``backend='aten'``, which knows products and convolutions alone, and for models on the device
    'meta': elsewhere an operator may first measure its algorithms, which would be counted too.
    """

    def of_torch(formula: Callable[..., int]) -> Callable[[tuple, tuple], int]:
        return lambda arguments, results: formula(*arguments, out_val=results[0]) // 2

    def of_ours(formula: Any) -> Callable[[tuple, tuple], int]:
        def hook(arguments: tuple, results: tuple) -> int:
            return formula(*tree_map_only(torch.Tensor, lambda x: x.shape, arguments)) // 2

        return hook

    def deformable(arguments: tuple, results: tuple) -> int:
        return results[0].numel() * math.prod(arguments[1].shape[1:])

    hooks = {operator: of_torch(formula) for operator, formula in flop_formulas().items()}
    hooks[torch.ops.torchvision.deform_conv2d] = deformable
    return hooks | {operator: of_ours(formula) for operator, formula in FORMULAS.items()}


_HANDLES = {
    'FlopAnalyzer': op_handles,
    'FlopCountAnalysis': op_handles,
    'ActivationAnalyzer': _activation_handles,
    'ActivationCountAnalysis': _activation_handles,
}


@contextmanager
def counted(analysis: Any) -> Iterator[None]:
    """Let an analysis of fvcore or MMEngine that traces in the block see our operators.

    Handles that its user has set stay.

    Args:
        analysis: ``FlopCountAnalysis``, ``FlopAnalyzer`` or their counters of activations, of a
            model with modules of this package; it counts multiply-adds.
    """
    for kind in type(analysis).__mro__:
        for name, handle in _HANDLES.get(kind.__name__, dict)().items():
            theirs = analysis._op_handles.get(name)
            ignored = name in analysis._ignored_ops
            if not ignored and (theirs is None or _is_default(theirs)):
                analysis.set_op_handle(name, handle)
    with torch.no_grad(), with_our_operators(), fused_despite_hooks(analysis._model):
        yield


def _is_default(handle: Any) -> bool:
    """Whether a handle is one that the package of the analysis brings."""
    return str(getattr(handle, '__module__', '')).split('.')[0] in ('mmengine', 'fvcore')
