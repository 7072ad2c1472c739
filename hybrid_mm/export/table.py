"""Table of docs/export.md: which networks can be exported to ONNX, alone and in larger models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import Graph, graphs_of
from hybrid_mm.export.random_weights import vary_outputs
from hybrid_mm.export.rows import Table, no
from hybrid_mm.export.whole import whole_graph
from hybrid_mm.registry import MODELS
from hybrid_mm.zoo.families import BASE_MODELS, families, model_with, shortened

SIZE = (64, 96)
ALONE = 'backbone'


def cells_of(
    name: str,
    columns: list[str],
    cells: dict[str, str],
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[dict[str, str]]:
    """Cells of a family; see :class:`hybrid_mm.export.rows.Table`."""
    config = shortened(families()[name])
    for column in columns:
        torch.manual_seed(0)
        # what does not trace for any size alone does not in a model either
        dynamic = column == ALONE or not cells.get(ALONE, '').startswith(('no', 'fixed'))
        found = cell(config, column, folder / 'x.onnx', dynamic, say)
        # one that differs at some size is wrong, and not of one size
        if dynamic and found.startswith('no') and 'differs by' not in found:
            say(f'any size: {found}')
            fixed = cell(config, column, folder / 'x.onnx', False, say)
            found = found if fixed.startswith('no') else f'fixed {fixed}'
        elif not dynamic and not found.startswith('no'):
            found = f'fixed {found}'
        cells[column] = found
        yield {column: found}


def cell(
    config: dict,
    column: str,
    path: Path,
    dynamic: bool,
    say: Callable[[str], None] | None = None,
) -> str:
    """Export one network and compare it with PyTorch.

    Args:
        config: Config of the backbone.
        column: Column of the table: the backbone alone, or the head of a model around it.
        path: File to write.
        dynamic: Export for any size of the image, and compare at other sizes as well.
        say: See :func:`hybrid_mm.export.onnx_files.export`.

    Returns:
        Text of the cell: the largest difference, or ``no: REASON``.
    """
    size = onnx_files.traced_size(SIZE) if dynamic else SIZE
    try:
        if column == ALONE:
            model = MODELS.build(dict(config))
            (graph,) = graphs_of(model, size)
        else:
            graph = whole_graph(vary_outputs(model_with(config, column)), size)
        onnx_files.export(graph, path, dynamic, say=say)
        others = _others(graph, column, size) if dynamic else ()
        return f'{onnx_files.check(graph, path, others):.0e}'
    except Exception as error:  # of a builder, the exporter or onnxruntime
        return no(error)


def _others(graph: Graph, column: str, size: tuple[int, int]) -> Iterator[dict[str, torch.Tensor]]:
    if column == ALONE:
        return onnx_files.other_sizes(graph.module, size, '')
    return onnx_files.other_images(graph)


COLUMNS = (ALONE, *BASE_MODELS)
TABLE = Table('export', COLUMNS, {title: (title,) for title in COLUMNS}, cells_of, seconds=240)
