"""Sliding windows in one ONNX file: a loop over the windows around the graph of one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hybrid_mm.export.graphs import Graph
from hybrid_mm.export.segmenters import SlidingWindows, WholeImage

if TYPE_CHECKING:
    import onnx

__all__ = ['joined', 'parts_of_windows']


class _Window(nn.Module):
    """One window, (N, C, h, w): its logits."""

    def __init__(self, network: WholeImage) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        return WholeImage.logits(self.network, window)


class _Results(nn.Module):
    """The outputs of logits at the size of the image."""

    def __init__(self, network: WholeImage) -> None:
        super().__init__()
        self.network = network

    def forward(self, averaged: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        return self.network.results(self.network.resized(averaged, wanted))


def parts_of_windows(graph: Graph, dynamic: bool) -> tuple[Graph, Graph, Graph]:
    """The parts of an end-to-end graph with sliding windows, each a graph of its own.

    Args:
        graph: The graph, whose module has the parts ``prepare`` and ``network``.
        dynamic: Whether images, and so the windows of small ones, may have any size.

    Returns:
        Preparation of the image, network of a window, and what follows the average.
    """
    prepare: Any = graph.module.prepare
    network: Any = graph.module.network
    image = graph.inputs['image']
    with torch.no_grad():
        x = prepare(image)
    height, width = network.crop
    if dynamic:  # odd and not square: nothing of the example's size shall hold for all
        height, width = height | 1, (width | 1) + 2
    else:
        height, width = min(height, x.shape[2]), min(width, x.shape[3])
    window = x.new_zeros(len(x), x.shape[1], height, width)
    averaged = x.new_zeros(len(x), network.model.out_channels, 33, 47)
    one = replace(graph, defaults=())
    return (
        replace(one, module=prepare, inputs={'image': image}, outputs=['prepared']),
        replace(
            one,
            module=_Window(network),
            inputs={'window': window},
            outputs=['logits'],
            axes={'window': (2, 3)},
        ),
        replace(
            one,
            module=_Results(network),
            inputs={'averaged': averaged, **network.settings},
            axes={'averaged': (2, 3)},
        ),
    )


# in ONNX's textual form; the nodes of the network go between the two parts of the loop's body
_LOOP = """
sliding (float[n, c, h, w] prepared) => (float[n, k, h, w] averaged)
<int64[2] crop = {{{crop}}}, int64[2] stride = {{{stride}}}, int64[1] classes = {{{classes}}},
 int64[2] axes = {{2, 3}}, int64[2] none = {{0, 0}}, int64[1] one = {{1}},
 int64[2] ones = {{1, 1}}, float empty = {{0}}, float full = {{1}}, bool always = {{1}}>
{{
    whole = Shape <start = 2> (prepared)
    images = Shape <end = 1> (prepared)
    beyond = Sub (whole, crop)
    above = Max (beyond, none)
    enlarged = Add (above, stride)
    rounded = Sub (enlarged, ones)
    steps = Div (rounded, stride)
    grid = Add (steps, ones)
    columns = Gather (grid, one)
    windows = ReduceProd <keepdims = 0> (grid)
    sums_size = Concat <axis = 0> (images, classes, whole)
    counts_size = Concat <axis = 0> (ones, whole)
    no_sums = Expand (empty, sums_size)
    no_counts = Expand (empty, counts_size)
    sums, counts = Loop <body = one_window (
        int64 number, bool goes_on, float[n, k, h, w] sums_before, float[a, b, h, w] counts_before
    ) => (bool more, float[n, k, h, w] sums_after, float[a, b, h, w] counts_after) {{
        row = Div (number, columns)
        column = Mod (number, columns)
        place = Concat <axis = 0> (row, column)
        corner = Mul (place, stride)
        reach = Add (corner, crop)
        end = Min (reach, whole)
        origin = Sub (end, crop)
        start = Max (origin, none)
        window = Slice (prepared, start, end, axes)
        rest = Sub (whole, end)
        padding = Concat <axis = 0> (none, start, none, rest)
        length = Sub (end, start)
        window_size = Concat <axis = 0> (ones, length)
        inside = Expand (full, window_size)
        padded = Pad (logits, padding)
        sums_after = Add (sums_before, padded)
        marked = Pad (inside, padding)
        counts_after = Add (counts_before, marked)
        more = Identity (goes_on)
    }}> (windows, always, no_sums, no_counts)
    mean = Div (sums, counts)
    unpadded = Shape <start = {axis}, end = {after}> (image)
    averaged = Slice (mean, none, unpadded, axes)
}}
"""


def joined(
    prepare: 'onnx.ModelProto',
    window: 'onnx.ModelProto',
    results: 'onnx.ModelProto',
    network: SlidingWindows,
    axis: int,
) -> 'onnx.ModelProto':
    """One model of the three parts, with a loop over the windows.

    Args:
        prepare: From ``image`` to ``prepared``, (N, C, H', W').
        window: From ``window`` to ``logits`` of its size: the body of the loop.
        results: From the average, ``averaged``, to the outputs; its other inputs become inputs of
            the model.
        network: The network of the parts.
        axis: Axis of the height of ``image``.
    """
    from onnx import compose, parser

    def numbers(values: Sequence[int]) -> str:
        return ', '.join(map(str, values))

    parts = []
    for prefix, part in (('prepare/', prepare), ('window/', window), ('results/', results)):
        parts.append(compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False))
    whole, one, last = parts
    text = _LOOP.format(
        crop=numbers(network.crop),
        stride=numbers(network.stride),
        classes=network.model.out_channels,
        axis=axis,
        after=axis + 2,
    )
    loop = parser.parse_graph(text)
    body = next(node for node in loop.node if node.op_type == 'Loop').attribute[0].g
    place = 1 + next(i for i, node in enumerate(body.node) if node.output[0] == 'window')
    nodes = [*body.node[:place], *one.graph.node, *body.node[place:]]
    del body.node[:]
    body.node.extend(nodes)
    body.initializer.extend(one.graph.initializer)
    graph = whole.graph
    for other in (loop, last.graph):
        graph.node.extend(other.node)
        graph.initializer.extend(other.initializer)
    graph.input.extend(item for item in last.graph.input if item.name != 'averaged')
    del graph.output[:]
    graph.output.extend(last.graph.output)
    return whole
