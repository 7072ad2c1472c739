"""ONNX files of graphs: how they are written, and compared with PyTorch by onnxruntime."""

import contextlib
import importlib.util
import io
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.compat.torch_api import EXPORTS_ONNX
from hybrid_mm.export import operators
from hybrid_mm.export.folding import fold_norms, merged
from hybrid_mm.export.graphs import (
    ExportError,
    Graph,
    example_rois,
    graphs_of,
    largest_difference,
)
from hybrid_mm.export.open_sizes import open_sizes
from hybrid_mm.export.segmenters import SlidingWindows
from hybrid_mm.export.sliding import joined, parts_of_windows
from hybrid_mm.export.whole import EndToEnd
from hybrid_mm.run.console import duration

__all__ = ['check', 'export', 'other_images', 'other_sizes', 'require_exporter']

# largest difference that counts as rounding, relative to the largest number of an output
TOLERANCE = 1e-4
LONG = 30.0  # seconds of an export, above which it is said
LARGE = 2**31 - 2**24  # bytes of weights, above which a file has a second one
LONGER = 5.0  # translating a graph to ONNX, relative to tracing it
_STRIDE = 32  # of the smallest maps of backbones


def require_exporter() -> None:
    """Check that this torch can export, and that the packages that it needs are installed.

    Raises:
        ExportError: torch is too old; onnx or onnxscript is not installed.
    """
    if not EXPORTS_ONNX:
        raise ExportError(
            f'torch {torch.__version__} cannot export these networks: it fails or writes other '
            'numbers; torch 2.6 or newer can, with the same config and checkpoint'
        )
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        if importlib.util.find_spec(name) is None:
            raise ExportError(f'{name} is not installed; pip install "hybrid-mm[export]"')


def export(
    graph: Graph,
    path: Path,
    dynamic: bool = False,
    properties: dict | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write a graph to an ONNX file, weights included, that onnxruntime has run once.

    Weights of more than 2 GB, which such a file cannot hold, go to a second one, PATH.data.

    Args:
        graph: The graph.
        path: File to write.
        dynamic: Allow any height and width (and any number of regions, or images). Without it, a
            graph of any number of images gets one.
        properties: Strings by name, for the metadata of the file; 'opset' is added.
        say: Called with a line if the export will take long: before it does, and with the reason;
            and if the network fixes the number of images.

    Raises:
        ExportError: The exporter fails, or onnxruntime cannot run the file, of which nothing stays;
            torch is too old; a package is not installed.
    """
    require_exporter()
    import onnx

    any_batch = graph.any_batch
    if any_batch and not dynamic:
        _take_one_image(graph)
    if isinstance(getattr(graph.module, 'network', None), SlidingWindows):
        proto = _in_windows(graph, dynamic, say)
    else:
        proto = _translated(graph, dynamic, say)
    if any_batch and dynamic and not graph.any_batch and say is not None:
        say('the network fixes the number of images: the file takes one; --batch sets another')
    for name in graph.defaults:  # an initializer with the name of an input is its default value
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(graph.inputs[name].numpy(), name)
        )
    domains = {item.domain: item.version for item in proto.opset_import}
    if set(domains) - {'', 'ai.onnx'}:
        raise ExportError(f'the file would need operators of {", ".join(sorted(domains))}')
    opset = json.dumps(max(domains.values()))
    onnx.helper.set_model_props(proto, {**(properties or {}), 'opset': opset})
    path.parent.mkdir(parents=True, exist_ok=True)
    # the name of the second file is part of the first: both are written elsewhere, then moved
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}-', dir=path.parent) as folder:
        file, outside = Path(folder, path.name), Path(folder, f'{path.name}.data')
        if sum(len(item.raw_data) for item in _weights(proto.graph)) > LARGE:
            onnx.save(proto, str(file), save_as_external_data=True, location=outside.name)
        else:
            onnx.save(proto, str(file))
        del proto
        onnx.checker.check_model(str(file))
        first = {
            k: v[:1] if k == 'image' and graph.any_batch else v for k, v in graph.inputs.items()
        }
        try:
            run(file, first, graph.outputs)
        except ExportError as error:
            raise ExportError(f'{graph.name} cannot be exported: {error}') from error
        path.with_name(outside.name).unlink(missing_ok=True)
        for written in (outside, file):
            if written.exists():
                written.replace(path.with_name(written.name))


def _in_windows(graph: Graph, dynamic: bool, say: Callable[[str], None] | None) -> Any:
    """A graph with sliding windows as an ``onnx.ModelProto``, translated in parts."""
    prepare, window, results = parts_of_windows(graph, dynamic)
    network = _translated(window, dynamic, say)
    if window.any_batch != graph.any_batch:
        _take_one_image(graph)
        prepare, _, results = parts_of_windows(graph, dynamic)
    around = (_translated(part, dynamic, say) for part in (prepare, results))
    module: Any = graph.module
    return joined(next(around), network, next(around), module.network, module.prepare.axes[0])


def _translated(graph: Graph, dynamic: bool, say: Callable[[str], None] | None) -> Any:
    """The graph as an ``onnx.ModelProto``."""
    try:
        module = merged(graph.module)
        with _quiet(), open_sizes(module), torch.no_grad():
            # given a module that it cannot trace so, the ONNX exporter would try other ways, for
            # minutes, one of which silently fixes the sizes
            begun = time.monotonic()
            traced = _traced(graph, module, dynamic)
            line = forecast(len(traced.graph.nodes), time.monotonic() - begun)
            if line and say is not None:
                say(line)
            program = torch.onnx.export(
                traced,
                (),
                None,
                dynamo=True,
                verbose=False,
                input_names=list(graph.inputs),
                output_names=graph.outputs,
                custom_translation_table=operators.translations(),
            )
    except Exception as error:  # of any type, from the exporter, onnxscript or the network
        raise ExportError(f'{graph.name} cannot be exported: {reason(error)}') from error
    assert program is not None
    proto = program.model_proto
    # the exporter's optimizer leaves out what repeats a tensor, but not the shape that it had:
    # onnxruntime, which would put both into one buffer, finds the shapes itself
    del proto.graph.value_info[:]
    fold_norms(proto)
    return proto


def _weights(graph: Any) -> Iterator[Any]:
    """The tensors that are stored in an ``onnx.GraphProto``, also in bodies of its loops."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _weights(attribute.g)


def _traced(graph: Graph, module: nn.Module, dynamic: bool) -> torch.export.ExportedProgram:
    """The operators of a graph.

    A number of images that the network fixes while it is traced is made one, in ``graph.inputs``
    as well.
    """
    inputs = tuple((_example(graph) if dynamic else graph.inputs).values())
    traced = torch.export.export(
        module, inputs, dynamic_shapes=_open_axes(graph) if dynamic else None, strict=False
    )
    if not (dynamic and graph.any_batch):
        return traced
    placeholder = traced.graph_signature.user_inputs[0]
    node = next(node for node in traced.graph.nodes if node.name == placeholder)
    number = node.meta['val'].shape[0]
    fixed = not isinstance(number, torch.SymInt) or number.node.maybe_as_int() is not None
    if not fixed and not any(_has_open_settings(node) for node in traced.graph.nodes):
        return traced
    _take_one_image(graph)
    return _traced(graph, module, dynamic)


def _has_open_settings(node: torch.fx.Node) -> bool:
    """Whether it is a convolution whose groups depend on the number of images, as ONNX has none."""
    convolution = node.target == torch.ops.aten.conv2d.default
    return convolution and any(isinstance(setting, torch.fx.Node) for setting in node.args[3:])


def _take_one_image(graph: Graph) -> None:
    """Fix the number of images of a graph."""
    name, example = next(iter(graph.inputs.items()))
    graph.inputs[name] = example[:1].contiguous()
    graph.any_batch = False


def _example(graph: Graph) -> dict[str, Tensor]:
    """Inputs with which a graph of any size is traced.

    The tracer would take a map of one row or column, or an axis with one window, for one that
    always has one, so the image is made larger where that could be. Only its shape matters.
    """
    least, windows = graph.least, [0]
    for layer in graph.module.modules():
        for name in ('window', 'block_size'):
            window = getattr(layer, name, None)
            windows += [window] if isinstance(window, int) else window or ()
    name = 'window' if 'window' in graph.inputs else 'image'  # of a segmenter, or the whole
    if name not in graph.inputs:
        return graph.inputs
    image = graph.inputs[name]
    shape = [*image.shape]
    for i, axis in enumerate(graph.axes.get(name, ())):
        # not square, also if it is padded to a multiple of 32
        covered = _STRIDE * (max(windows) + i) + 2 * i if any(windows) else 0
        shape[axis] = max(shape[axis], least + 2 * i, covered + 1)
    return {**graph.inputs, name: image.new_zeros(shape)}


def _open_axes(graph: Graph) -> tuple:
    """What ``torch.export`` calls the dynamic shapes of a graph."""
    dims = {k: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for k, axes in graph.axes.items()}
    if graph.any_batch:
        dims.setdefault(next(iter(graph.inputs)), {})[0] = torch.export.Dim.AUTO
    shapes: tuple[Any, ...] = tuple(dims.get(name, {}) for name in graph.inputs)
    parameters = signature(graph.module.forward).parameters.values()
    if len(shapes) > 1 and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shapes = (shapes[0], shapes[1:])  # forward(first, *others)
    return shapes


def forecast(operators: int, seconds: float) -> str:
    """A line about an export that will take long; empty about others.

    Args:
        operators: Number of operators in the traced graph.
        seconds: What tracing has taken. Translating them takes this exporter 4 to 8 times as long.
    """
    if LONGER * seconds < LONG:
        return ''
    return (
        f'{operators:,} operators traced in {duration(seconds)}; translating them takes about '
        f'{duration(LONGER * seconds)} more (a loop in Python is written out; operators on whole '
        'tensors in its place export faster)'
    )


def check(graph: Graph, path: Path, others: Iterable[dict[str, Tensor]] = ()) -> float:
    """Compare a file with PyTorch on the traced inputs and others.

    Args:
        graph: The module and the inputs that were traced.
        path: The ONNX file.
        others: Further inputs by name, for instance of other sizes.

    Returns:
        The largest difference; see :func:`difference`.

    Raises:
        ExportError: The difference is above ``TOLERANCE``.
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


def session_of(path: Path) -> Any:
    """A file in onnxruntime, on the CPU, with as many threads as PyTorch uses.

    Args:
        path: The ONNX file.

    Raises:
        ExportError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            'onnxruntime is not installed; pip install "hybrid-mm[export]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])


def run(path: Path, inputs: dict[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
    """Outputs of a file by name.

    Args:
        path: The ONNX file.
        inputs: Inputs by name.
        outputs: Names of the outputs.

    Raises:
        ExportError: onnxruntime is not installed, or cannot run the file.
    """
    try:
        results = session_of(path).run(outputs, {k: v.numpy() for k, v in inputs.items()})
    except ExportError:
        raise
    except Exception as error:  # of several types of onnxruntime's own
        raise ExportError(f'onnxruntime cannot run it: {reason(error)}') from error
    return {k: torch.from_numpy(v) for k, v in zip(outputs, results, strict=True)}


def difference(graph: Graph, path: Path, inputs: dict[str, Tensor] | None = None) -> float:
    """Largest difference between onnxruntime and PyTorch over all outputs.

    It is relative to the largest number of the output.

    Args:
        graph: The graph that was exported.
        path: Its file.
        inputs: Inputs by name; by default those that were traced.

    Raises:
        ExportError: onnxruntime is not installed, cannot run the file, or returns other shapes.
    """
    inputs = graph.inputs if inputs is None else inputs
    found = run(path, inputs, graph.outputs)
    with torch.no_grad():
        if isinstance(graph.module, EndToEnd):
            return graph.module.difference(found, *inputs.values())
        expected = graph.module(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else expected
    return largest_difference(dict(zip(graph.outputs, expected, strict=True)), found)


def other_sizes(
    model: nn.Module, size: tuple[int, int], part: str, **settings
) -> Iterator[dict[str, Tensor]]:
    """Inputs of other sizes than the traced one, for raw files of dynamic sizes.

    Args:
        model: Model of the graph.
        size: Height and width that were traced.
        part: The graph, by its attribute ``part``.
        settings: Further arguments of :func:`~hybrid_mm.export.graphs.graphs_of`.
    """
    for other in _sizes_near(size):
        graph = next(g for g in graphs_of(model, other, **settings) if g.part == part)
        if 'rois' in graph.inputs:
            image = torch.empty(1, 3, *other)
            graph.inputs['rois'] = example_rois(image, other[0] % 5 + 2)
        yield graph.inputs


def other_images(graph: Graph) -> Iterator[dict[str, Tensor]]:
    """Inputs of other sizes and numbers of images, for end-to-end files of dynamic sizes.

    Args:
        graph: End-to-end graph that was exported.
    """
    module = graph.module
    assert isinstance(module, EndToEnd)
    image = graph.inputs['image']
    height, width = module.size(image)
    channels = module.prepare.channels(image)
    for number, size in enumerate(_sizes_near((height, width))):
        batch = 1 + number % 2 if graph.any_batch else len(image)
        yield {**graph.inputs, 'image': module.prepare.example(size, channels, batch)}


def _sizes_near(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Three sizes to compare at: turned, of other remainders, and a square that windows divide."""
    height, width = size
    return (width, height), (height + 33, width + 35), (-(-height // 32) * 32,) * 2


def traced_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size near the given one at which a graph of dynamic sizes is traced.

    It is odd, and not square: if a window divided the traced size, the tracer would assume that
    windows divide every size.
    """
    return size[0] | 1, (size[1] | 1) + 2


def reason(error: BaseException) -> str:
    """The original cause of an exporter's exception, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r'\x1b\[\d*(;\d+)*m', '', str(error))
    operator = re.search(r'No ONNX function found for <OpOverload\(op=\'([\w.:]+)\'', text)
    operator = operator or re.search(r'Error when translating node.*?torch\.ops\.([\w.]+)\(', text)
    if operator:
        return f'the exporter does not know the operator {operator[1]}'
    if 'data is not allocated yet' in text:
        return (
            'a layer runs code of its own that cannot be traced, such as an operator of MMCV '
            '(deformable convolution)'
        )
    lines = [line.strip() for line in text.split('\n') if line.strip()] or [type(error).__name__]
    return ' '.join(lines)[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context without the messages of the exporter."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
