"""Choose among exact algorithms by measuring them once, as cuDNN's benchmark mode does.

A choice is the first candidate, without a measurement, while torch compiles, exports or captures a
CUDA graph, and with deterministic algorithms, whose results must not hang on a clock.

Several processes (``torch.distributed``) take one choice: who has measured first tells the others
through the store in which the processes have found each other. Nobody waits for anybody there, so
that processes may come to different shapes at different times, or never.
"""

import json
import math
import os
import platform
import stat
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from hybrid_mm.compat.torch_api import getenv, is_compiling
from hybrid_mm.ops.device_tables import capturing
from hybrid_mm.ops.export import exporting

CACHE_VARIABLE = 'HYBRID_MM_AUTOTUNE_CACHE'
_RUNS = 5  # of a candidate that is among the fastest

Candidates = Mapping[str, Callable[..., Tensor]]
Inputs = Sequence[Tensor | None]

_chosen: dict[str, str] = {}  # choices of this process
_read_files: set[str] = set()  # names of files whose choices are among them
_warned: set[str] = set()  # names of files that did not work


def describe(*tensors: Tensor | None) -> tuple:
    """Sizes, dtype and need of a gradient of tensors: the key under which a choice is cached.

    Sizes are in classes of half an octave: training on images of many sizes measures a few times.
    """
    return tuple(
        None
        if t is None
        else (
            *(round(2 * math.log2(size)) if size else -1 for size in t.shape),
            str(t.dtype)[6:],
            t.requires_grad and torch.is_grad_enabled(),
        )
        for t in tensors
    )


def choose(operator: str, key: tuple, candidates: Candidates, inputs: Inputs) -> str:
    """Name of the fastest candidate, measured at the first call with this key.

    The choice is remembered in the process, told to the other processes of the run and, if the
    environment variable ``HYBRID_MM_AUTOTUNE_CACHE`` names a file, written there for later runs on
    the same kind of device with as many threads.

    Args:
        operator: Name of the operator.
        key: What the choice depends on, e.g. :func:`describe` of the inputs and the arguments.
        candidates: Functions of the inputs that compute the same thing, the default first. Their
            names do not depend on what the key leaves out.
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
    chosen = _chosen.get(name, '')
    if chosen in candidates:
        return chosen
    if len(candidates) == 1 or not _measurable(device):
        return first
    chosen = _told(name)
    if chosen not in candidates:
        own = _measure(candidates, inputs, device)
        chosen = _told(name, own)
        chosen = chosen if chosen in candidates else own
    _chosen[name] = chosen
    _write_file(name, chosen)
    return chosen


def _measurable(device: torch.device) -> bool:
    if device.type == 'meta' or exporting() or is_compiling() or torch.jit.is_tracing():
        return False
    return not (torch.are_deterministic_algorithms_enabled() or capturing(device))


def _device(device: torch.device) -> str:
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, torch {torch.__version__}'
    cpu = f'{platform.machine()} {torch.backends.cpu.get_cpu_capability()}'
    return f'{cpu} {torch.get_num_threads()} threads, torch {torch.__version__}'


def _has_memory(inputs: Inputs, device: torch.device) -> bool:
    """Whether there is room for gradients, a result and its gradient, of the size of the inputs."""
    if device.type != 'cuda':
        return True
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    sizes = [t.numel() * t.element_size() for t in inputs if t is not None]
    return free > sum(sizes) + 2 * max(sizes)


def _measure(candidates: Candidates, inputs: Inputs, device: torch.device) -> str:
    """Name of the fastest; one that runs out of memory is the slowest.

    Without room to measure it is the first, and stays so: a step goes on as it has begun.
    """
    first = next(iter(candidates))
    if not _has_memory(inputs, device):
        return first
    times = {}
    for name, function in candidates.items():
        times[name] = _time(function, inputs, device)
        if device.type == 'cuda' and times[name] < math.inf:  # the first run compiles kernels
            times[name] = _time(function, inputs, device)
    near = [name for name, t in times.items() if t < 3 * min(times.values())]
    if len(near) < 2:
        return near[0] if near else first
    runs = {name: [_time(candidates[name], inputs, device)] for name in near}
    for _ in range(_RUNS - 1):
        for name in near:
            runs[name].append(_time(candidates[name], inputs, device))
    # what else runs on a CPU makes single runs slower, never faster
    typical = statistics.median if device.type == 'cuda' else min
    return min(near, key=lambda name: typical(runs[name]))


def _time(function: Callable[..., Tensor], inputs: Inputs, device: torch.device) -> float:
    """Seconds of a run and, if any input needs a gradient, of its backward pass."""
    train = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    copies = [t if t is None else t.detach().requires_grad_(t.requires_grad) for t in inputs]

    def run() -> None:
        # hooks of a gradient checkpoint around the operator must not see what is saved here
        plain = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
        with torch.set_grad_enabled(train), plain:
            out = function(*copies)
            if train:
                wanted = [t for t in copies if t is not None and t.requires_grad]
                torch.autograd.grad(out, wanted, torch.ones_like(out))

    try:
        return _time_on_gpu(run, device) if device.type == 'cuda' else _time_on_cpu(run)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        pass  # the traceback, which holds on to memory, ends here
    if device.type == 'cuda':
        torch.cuda.empty_cache()
    return math.inf


def _time_on_cpu(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _time_on_gpu(run: Callable[[], None], device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000


def _told(name: str, own: str = '') -> str:
    """What the first process has chosen, '' before; with ``own``, that if no other has told."""
    if not (dist.is_available() and dist.is_initialized()):
        return own
    try:
        store = dist.distributed_c10d._get_default_store()
        if own:
            return store.compare_set(f'{CACHE_VARIABLE} {name}', '', own).decode()
        known = store.check([f'{CACHE_VARIABLE} {name}'])
        return store.get(f'{CACHE_VARIABLE} {name}').decode() if known else ''
    except (AttributeError, RuntimeError, NotImplementedError):  # a store of another kind
        return own


def _path() -> str:
    """The file of choices, or ''; a pipe, which makes whoever opens it wait, is none."""
    path = os.path.expanduser(getenv(CACHE_VARIABLE))
    if path and os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode):
        _warn(path, 'is a pipe, not a file; algorithms are measured anew')
        return ''
    return path


def _read_file() -> None:
    """Read the choices of earlier runs: a line {key: choice} each, the last of a key holds."""
    path = _path()
    if not path or path in _read_files:
        return
    _read_files.add(path)
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            lines = [line for line in file if not line.isspace()]
    except FileNotFoundError:
        return
    except OSError as error:
        _warn(path, f'cannot be read ({error}); algorithms are measured anew')
        return
    found, damaged = {}, 0
    for line in lines:
        try:
            ((name, choice),) = json.loads(line).items()
        except (ValueError, AttributeError):
            choice = None
        if isinstance(choice, str):
            found[name] = choice
        else:
            damaged += 1
    if damaged:
        _warn(path, f'{damaged} of {len(lines)} lines are not stored choices and are ignored')
    for name, choice in found.items():
        _chosen.setdefault(name, choice)


def _write_file(name: str, chosen: str) -> None:
    """Add a choice. Lines are added at once, so that processes do not disturb each other."""
    path = _path()
    if not path:
        return
    line = json.dumps({name: chosen})
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        # an empty line ends what a run that was killed may have left half written
        with open(path, 'a', encoding='utf-8') as file:
            file.write(f'\n{line}\n')
    except OSError as error:
        _warn(path, f'cannot be written ({error}); later runs measure again')


def _warn(path: str, problem: str) -> None:
    if path not in _warned:
        _warned.add(path)
        warnings.warn(f'{CACHE_VARIABLE}: {path}: {problem}', stacklevel=4)
