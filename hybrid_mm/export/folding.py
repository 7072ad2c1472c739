"""What training needs and a file does not: norms and parallel kernels become part of other layers.

:func:`merged` works on the module before it is traced: parallel kernels (RepLKNet, SLaK, PeLK)
become one kernel, and the norms of LeViT's linear layers become part of their matrices.
:func:`fold_norms` works on the file: a batch norm before convolutions or linear layers, as in VAN,
RepLKNet, MaxViT and CoAtNet, becomes part of their weights. Norms after convolutions are folded by
the exporter. What remains are norms after sums, concatenations and attention, followed by an
activation. All of it is exact, up to rounding.
"""

import copy
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hybrid_mm.export.bodies import captured

__all__ = ['fold_norms', 'merged']

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]


def merged(module: nn.Module) -> nn.Module:
    """A copy of a module in which everything that has a ``switch_to_deploy`` of ours is switched.

    Args:
        module: A model in eval mode, which stays as it is.

    Returns:
        The copy; the module itself if it contains nothing to merge, or something that cannot be
        merged: a layer that was replaced, parametrised or has hooks.
    """

    def parts(of: nn.Module) -> list[Any]:
        # a network comes before its parts: PeLK knows the position embeddings of its kernels
        return [part for part in of.modules() if _switches(part)]

    if not parts(module):
        return module
    changed = copy.deepcopy(module)
    try:
        for part in parts(changed):
            part.switch_to_deploy()
    except ValueError:
        return module
    return changed.eval()


def _switches(part: nn.Module) -> bool:
    """Whether a module has a ``switch_to_deploy`` that is written in this package."""
    method = getattr(type(part), 'switch_to_deploy', None)
    return getattr(method, '__module__', '').partition('.')[0] == __name__.partition('.')[0]


def fold_norms(proto: Any) -> int:
    """Fold batch norms of an ONNX graph into the convolutions and linear layers after them.

    A norm is folded if nothing else takes its result, and if none of the layers pads: a border of
    zeros after the norm is no border of zeros before it.

    Args:
        proto: An ``onnx.ModelProto``, changed in place.

    Returns:
        The number of norms that are gone.
    """
    graph = proto.graph
    constants = {item.name: item for item in graph.initializer}
    for item in graph.input:  # with the name of an initializer: a default, not a constant
        constants.pop(item.name, None)
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    kept = {item.name for item in graph.output}
    for node in graph.node:
        kept |= captured(node)
    gone = []
    for norm in graph.node:
        if norm.op_type != 'BatchNormalization' or norm.output[0] in kept:
            continue
        layers = users[norm.output[0]]
        if not layers or not all(_takes(node, norm, constants) for node in layers):
            continue
        if not all(name in constants for name in norm.input[1:]):
            continue
        affine = _affine(norm, constants)
        for node in layers:
            _absorb(node, affine, graph, constants)
            node.input[0] = norm.input[0]
            users[norm.input[0]].append(node)
        gone.append(norm)
    for norm in gone:
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input} | kept
    used |= {item.name for item in graph.input}
    left = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return len(gone)


def _takes(node: Any, norm: Any, constants: dict[str, Any]) -> bool:
    """Whether a layer can absorb a norm before it."""
    if any(name not in constants for name in node.input[1:] if name):
        return False
    settings = _settings(node)
    if list(node.input).count(norm.output[0]) != 1 or node.input[0] != norm.output[0]:
        return False
    if node.op_type == 'Conv':
        return not any(settings.get('pads', ())) and settings.get('auto_pad', b'NOTSET') in (
            b'NOTSET',
            b'VALID',
        )
    if node.op_type == 'Gemm':
        return not settings.get('transA') and {1.0} == {
            settings.get('alpha', 1.0),
            settings.get('beta', 1.0),
        }
    return False


def _settings(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {item.name: get_attribute_value(item) for item in node.attribute}


def _affine(norm: Any, constants: dict[str, Any]) -> Affine:
    """Factor and shift of every channel of a norm."""
    from onnx.numpy_helper import to_array

    scale, bias, mean, variance = (
        to_array(constants[name]).astype(np.float64) for name in norm.input[1:]
    )
    factor = scale / np.sqrt(variance + _settings(norm).get('epsilon', 1e-5))
    return factor, bias - mean * factor


def _absorb(node: Any, affine: Affine, graph: Any, constants: dict[str, Any]) -> None:
    """Give a layer the weights and the bias that include a norm before it."""
    from onnx.numpy_helper import from_array, to_array

    stored = to_array(constants[node.input[1]])
    weight = stored.astype(np.float64)
    settings = _settings(node)
    if node.op_type == 'Conv':  # (outputs, inputs of a group, ...)
        groups = settings.get('group', 1)
        rows = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        factor, shift = (x.reshape(groups, 1, -1, 1) for x in affine)
        new, added = (rows * factor).reshape(weight.shape), (rows * shift).sum((2, 3)).ravel()
    else:
        rows = weight if settings.get('transB') else weight.T
        new, added = rows * affine[0], rows @ affine[1]
        new = new if settings.get('transB') else new.T
    if len(node.input) > 2 and node.input[2]:
        added = added + to_array(constants[node.input[2]]).astype(np.float64)
    name = f'{node.output[0]}_folded'
    for part, value in (('weight', new), ('bias', added)):
        item = from_array(np.ascontiguousarray(value.astype(stored.dtype)), f'{name}_{part}')
        graph.initializer.append(item)
        constants[item.name] = item
    del node.input[1:]
    node.input.extend([f'{name}_weight', f'{name}_bias'])
