"""Post-training quantisation of ONNX files to 8 bits, by onnxruntime.

Quantised are convolutions and linear layers with constant weights: weights per output channel,
activations per tensor. The first convolution and the layers that give results (classes, boxes,
proposals, masks) stay in float, as does everything else: attention, norms, softmax, the decoding of
boxes, non-maximum suppression.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_mm.errors import UserError
from hybrid_mm.export.bodies import captured

__all__ = ['quantisable', 'quantise']

LAYERS = ('Conv', 'Gemm', 'MatMul')
LINEAR = ('Gemm', 'MatMul')
CHOOSING = (
    *('ArgMax', 'ArgMin', 'TopK', 'NonMaxSuppression', 'Floor', 'Ceil', 'Round'),
    *('Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual'),
)
"""Operators that choose: what they are given is a result, of proposals or classes."""
Feed = dict[str, np.ndarray]


def quantisable(proto: Any) -> tuple[list[str], list[str]]:
    """Layers of a graph that can be quantised, and those of them that are kept in float.

    Args:
        proto: An ``onnx.ModelProto`` whose nodes have names.

    Returns:
        Names of the nodes with constant weights, and names of the first convolution and of the
        layers that give results: no other layer follows them, but for those that look at regions
        or classes that were chosen by them.
    """
    graph = proto.graph
    constants = {item.name for item in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == 'Constant'}
    layers = [n for n in graph.node if n.op_type in LAYERS and n.input[1] in constants]
    names = {node.name for node in layers}
    users = defaultdict(list)
    for node in graph.node:
        # regions are chosen too; what is sampled in them is not
        given = node.input[:1] if node.op_type == 'RoiAlign' else node.input
        for name in () if node.op_type in CHOOSING else (*given, *captured(node)):
            users[name].append(node)
    followed: dict[str, bool] = {}  # nodes are in the order of computation
    for node in reversed(graph.node):
        after = [user for name in node.output for user in users[name]]
        followed[node.name] = any(u.name in names or followed[u.name] for u in after)
    kept = [node.name for node in layers if not followed[node.name]]
    first = next((node.name for node in layers if node.op_type == 'Conv'), None)
    return [node.name for node in layers], ([first] if first else []) + kept


def quantise(
    source: Path,
    target: Path,
    feeds: Iterable[Feed] | None,
    reduce_range: bool = False,
) -> tuple[int, int]:
    """Write a file with weights of 8 bits.

    Args:
        source: File of ``tools/export_onnx.py``.
        target: File to write; it keeps the metadata, with an entry ``quantised``.
        feeds: Inputs by name, from which the ranges of the activations are measured. None for
            linear layers alone, whose activations are measured while the file runs.
        reduce_range: Use 7 bits for weights, for processors without VNNI, which add products in
            16 bits.

    Returns:
        The number of quantised layers, and of layers in all.

    Raises:
        UserError: onnxruntime or onnx is not installed; the file has no such layers or is
            quantised; onnxruntime fails.
    """
    try:
        import onnx
        import onnxruntime
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError(
            f'{error.name} is not installed; pip install "hybrid-mm[export]"'
        ) from error
    proto = onnx.load(str(source))
    properties = {item.key: item.value for item in proto.metadata_props}
    kinds = {node.op_type for node in proto.graph.node}
    if 'quantised' in properties or kinds & {'QuantizeLinear', 'DynamicQuantizeLinear'}:
        raise UserError(f'{source} is quantised; start from the file that export_onnx.py wrote')
    for number, node in enumerate(proto.graph.node):  # onnxruntime finds nodes by names
        node.name = f'{node.op_type}_{number}'
    layers, kept = quantisable(proto)
    if feeds is None:
        linear = {n.name for n in proto.graph.node if n.op_type in LINEAR}
        layers = [name for name in layers if name in linear]
    chosen = [name for name in layers if name not in kept]
    if not chosen:
        what = 'linear layers' if feeds is None else 'layers'
        raise UserError(
            f'{source} has no {what} to quantise: {len(layers)} with constant weights, of which '
            'the first and the last stay in float'
        )
    settings = dict(
        nodes_to_quantize=chosen,
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=quantization.QuantType.QInt8,
    )
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)  # optional inputs are no constants: it warns of them
    try:
        if feeds is None:
            # it first replaces every Gemm by a product of this name, and a sum
            settings['nodes_to_quantize'] = [*chosen, *(f'{name}_MatMul' for name in chosen)]
            quantization.quantize_dynamic(
                proto, str(target), op_types_to_quantize=list(LINEAR), **settings
            )
        else:
            quantization.quantize_static(
                proto,
                str(target),
                _reader(feeds),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                activation_type=quantization.QuantType.QUInt8,
                **settings,
            )
    except UserError:
        raise
    except Exception as error:  # of any type
        line = str(error).strip().split('\n')[0][:300]
        raise UserError(f'{source}: onnxruntime cannot quantise it: {line}') from error
    finally:
        logging.disable(level)
        onnxruntime.set_default_logger_severity(2)  # the default
    written = onnx.load(str(target))
    del written.metadata_props[:]
    kind = dict(
        weights='int8',
        activations='uint8' if feeds is not None else 'uint8, measured in every run',
        layers=len(chosen),
    )
    onnx.helper.set_model_props(written, {**properties, 'quantised': json.dumps(kind)})
    onnx.save(written, str(target))
    return len(chosen), len(layers)


def _reader(feeds: Iterable[Feed]) -> Any:
    """Inputs as onnxruntime reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.feeds, None)

    return Reader()
