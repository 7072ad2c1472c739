"""Choose among exact algorithms by measuring them once, as cuDNN's benchmark mode does."""

import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hybrid_mm.ops.export import exporting

CACHE_VARIABLE = 'HYBRID_MM_AUTOTUNE_CACHE'

_chosen: dict[str, str] = {}  # choices of this process
_read_files: set[str] = set()  # names of files whose choices are among them


def describe(*tensors: Tensor | None) -> tuple:
    """Shape, dtype and need of a gradient of tensors: the key under which a choice is cached."""
    return tuple(
        None
        if t is None
        else (*t.shape, str(t.dtype)[6:], t.requires_grad and torch.is_grad_enabled())
        for t in tensors
    )


def choose(
    operator: str,
    key: tuple,
    candidates: Mapping[str, Callable[..., Tensor]],
    inputs: Sequence[Tensor | None],
) -> str:
    """Name of the fastest candidate, measured at the first call with this key.

    The choice is remembered in the process and, if the environment variable
    ``HYBRID_MM_AUTOTUNE_CACHE`` names a file, in that file for later processes on the same kind of
    device with as many threads. While torch compiles or exports nothing can be measured: then the
    remembered choice is taken, or the first candidate.

    Args:
        operator: Name of the operator.
        key: What the choice depends on, e.g. :func:`describe` of the inputs and the arguments.
        candidates: Functions of the inputs that compute the same thing, the default first.
        inputs: Tensors, or None. Those that need a gradient are differentiated as well.

    Raises:
        ValueError: No candidate.
    """
    if not candidates:
        raise ValueError(f'{operator}: no algorithm to choose from')
    first = next(iter(candidates))
    device = next(t.device for t in inputs if t is not None)
    name = json.dumps([operator, _device(device), repr(key)])
    _read_file()
    chosen = _chosen.get(name)
    if chosen is not None and chosen in candidates:
        return chosen
    unmeasurable = device.type == 'meta' or exporting()
    if len(candidates) == 1 or unmeasurable or torch.compiler.is_compiling():
        return first
    chosen = _measure(candidates, inputs, device)
    _chosen[name] = chosen
    _write_file()
    return chosen


def _device(device: torch.device) -> str:
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, torch {torch.__version__}'
    cpu = f'{platform.machine()} {torch.backends.cpu.get_cpu_capability()}'
    return f'{cpu} {torch.get_num_threads()} threads, torch {torch.__version__}'


def _measure(
    candidates: Mapping[str, Callable[..., Tensor]],
    inputs: Sequence[Tensor | None],
    device: torch.device,
) -> str:
    train = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)

    def run(function: Callable[..., Tensor]) -> float:
        copies = [t if t is None else t.detach().requires_grad_(t.requires_grad) for t in inputs]
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        # hooks of a gradient checkpoint around the operator must not see what is saved here
        plain = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
        with torch.set_grad_enabled(train), plain:
            out = function(*copies)
            if train:
                wanted = [t for t in copies if t is not None and t.requires_grad]
                torch.autograd.grad(out, wanted, torch.ones_like(out))
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    best: dict[str, float] = {}
    for name, function in candidates.items():  # the first run of each also warms it up
        best[name] = run(function)
    near = [name for name, t in best.items() if t < 3 * min(best.values())]
    best = {name: run(candidates[name]) for name in near}
    for _ in range(3):
        for name in near:
            best[name] = min(best[name], run(candidates[name]))
    return min(best, key=best.__getitem__)


def _read_file() -> None:
    path = os.environ.get(CACHE_VARIABLE)
    if not path or path in _read_files:
        return
    _read_files.add(path)
    if not Path(path).exists():
        return
    try:
        found = json.loads(Path(path).read_text())
        if not all(isinstance(v, str) for v in found.values()):
            raise ValueError('a name of an algorithm for each key was expected')
    except (ValueError, AttributeError) as error:
        warnings.warn(
            f'{CACHE_VARIABLE}: {path} is not a file of remembered choices ({error}); it will be '
            'replaced',
            stacklevel=4,
        )
        return
    for name, chosen in found.items():
        _chosen.setdefault(name, chosen)


def _write_file() -> None:
    path = os.environ.get(CACHE_VARIABLE)
    if not path:
        return
    # another process reads the old file or the new one, never half of it
    partial = Path(f'{path}.{os.getpid()}')
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(_chosen, indent=0, sort_keys=True))
    partial.replace(path)
