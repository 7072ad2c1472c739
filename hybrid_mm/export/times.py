"""Table of docs/export.md: what networks take in PyTorch, compiled, and in onnxruntime.

The smallest variant of each family, the backbone alone, one image, one thread. The candidates take
turns in one process, as in :mod:`hybrid_mm.benchmarks.core`, so that the load of the machine
affects all alike; ratios are medians of the quotients within a round.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from hybrid_mm.benchmarks.core import in_turn, medians_and_ratios
from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError, graphs_of
from hybrid_mm.export.rows import Table, no
from hybrid_mm.zoo.families import build, families, smallest

SIZES = (224, 512)
ROUNDS = 15
SECONDS = 4.0  # for the rounds of one size, of which at least three are run
AGREE = 1e-3  # relative to the largest number of a map
STEPS: dict[str, tuple[str, ...]] = {
    **{
        f'{size}{kind}': ('variant', f'{size}: eager', f'{size}: onnxruntime')
        for size in SIZES
        for kind in ('', ', fixed')
    },
    **{f'{size}, compiled': (f'{size}: compiled',) for size in SIZES},
}
COLUMNS = (
    'variant',
    *(f'{size}: {kind}' for size in SIZES for kind in ('eager', 'onnxruntime', 'compiled')),
)


def cells_of(
    name: str,
    steps: list[str],
    cells: dict[str, str],
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[dict[str, str]]:
    """Cells of a family; see :class:`hybrid_mm.export.rows.Table`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = smallest(families()[name])
    model = build(config).eval()
    for step in steps:
        side, _, kind = step.partition(', ')
        size = int(side)
        image = torch.randn(1, 3, size, size)
        found = {} if kind == 'compiled' else {'variant': str(config['arch'])}
        title = f'{size}: {kind if kind == "compiled" else "onnxruntime"}'
        try:
            other: Callable[[Tensor], list[Tensor]]
            if kind == 'compiled':
                other, note = compiled_model(model), ''
            else:
                other, note = session(model, size, folder, say, kind == 'fixed')
            eager, milliseconds, ratio = compared(model, other, image)
            found[title] = f'{milliseconds:.0f} ms ({ratio:.2f}x{note})'
            if kind != 'compiled':
                found[f'{size}: eager'] = f'{eager:.0f} ms'
        except Exception as error:  # of a compiler, an exporter, onnxruntime
            found |= {t: no(error) for t in STEPS[step] if t != 'variant'}
        yield found


def steps_of(fixed: bool = False, compiled: bool = True) -> list[str]:
    """Steps of the table.

    Args:
        fixed: Measure files of one size, which are exported faster, in place of any size.
        compiled: Measure ``torch.compile`` as well.
    """
    found = [f'{size}, fixed' if fixed else f'{size}' for size in SIZES]
    return found + [f'{size}, compiled' for size in SIZES if compiled]


def session(
    model: nn.Module, size: int, folder: Path, say: Callable[[str], None], fixed: bool = False
) -> tuple[Callable[[Tensor], list[Tensor]], str]:
    """The exported network in onnxruntime: for any size of the image if it can, or for one.

    The file for any size stays in the folder for the next size.

    Args:
        model: The network.
        size: Height and width of the image.
        folder: Folder of the files.
        say: See :func:`hybrid_mm.export.onnx_files.export`.
        fixed: Export for one size only.

    Returns:
        A function of the image, and ', fixed' if the file takes images of one size.
    """
    path = folder / 'any.onnx'
    if fixed or not path.exists():
        for file in [folder / f'{size}.onnx'] if fixed else [path, folder / f'{size}.onnx']:
            dynamic = file == path
            traced = onnx_files.traced_size((64, 96)) if dynamic else (size, size)
            (graph,) = graphs_of(model, traced)
            try:
                onnx_files.export(graph, file, dynamic, say=say)
                path = file
                break
            except ExportError:
                if not dynamic:
                    raise
    running = onnx_files.session_of(path)

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(x) for x in running.run(None, {'image': image.numpy()})]

    return run, '' if path.name == 'any.onnx' else ', fixed'


def compiled_model(model: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    """The network compiled for one size, in this process."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, dynamic=False)


@torch.no_grad()
def compared(
    model: nn.Module, other: Callable[[Tensor], list[Tensor]], image: Tensor
) -> tuple[float, float, float]:
    """Milliseconds of eager PyTorch and of another candidate, and how many times as fast it is.

    Raises:
        ExportError: Their maps differ.
    """
    runs = dict(eager=partial(model, image), other=partial(other, image))
    for a, b in zip(runs['eager'](), runs['other'](), strict=True):
        found = ((a - b).abs().max() / a.abs().max()).item()
        if a.shape != b.shape or not found <= AGREE:
            raise ExportError(f'differs by {found:.0e} from eager PyTorch')

    def seconds(mode: str, name: str) -> float:
        start = time.perf_counter()
        runs[name]()
        return time.perf_counter() - start

    end, samples = time.perf_counter() + SECONDS, {}
    for samples in in_turn(seconds, [''], list(runs), ROUNDS, warm_up=False):
        if len(samples['', 'eager']) > 2 and time.perf_counter() > end:
            break
    medians, _ = medians_and_ratios(samples, 'eager')
    _, ratios = medians_and_ratios(samples, 'other')
    return medians['', 'eager'] * 1e3, medians['', 'other'] * 1e3, ratios['', 'eager']


TABLE = Table('times', COLUMNS, STEPS, cells_of, seconds=240)
