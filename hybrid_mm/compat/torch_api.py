"""What this package uses of torch and torch 2.1 does not have yet, under the names of new releases.

The feature is asked for, never the version. Where torch has a function, the name here is that very
function: nothing is added to a call, and compilers see what they know.
"""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils import _pytree

F = TypeVar('F', bound=Callable)

MARKS_EXPORTS = hasattr(torch.compiler, '_is_exporting_flag')
"""Whether torch says that it exports: 2.6 and newer."""

# remove when torch >= 2.3 is required
is_compiling = getattr(torch.compiler, 'is_compiling', torch._utils.is_compiling)
is_dynamo_compiling = getattr(torch.compiler, 'is_dynamo_compiling', torch._utils.is_compiling)

if hasattr(torch, 'get_autocast_dtype'):  # remove when torch >= 2.4 is required
    is_autocast_enabled = torch.is_autocast_enabled
    get_autocast_dtype = torch.get_autocast_dtype
else:

    def is_autocast_enabled(device_type: str) -> bool:
        """Whether autocast is on for a type of device."""
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return device_type == 'cuda' and torch.is_autocast_enabled()

    def get_autocast_dtype(device_type: str) -> torch.dtype:
        """The type that autocast computes in on a type of device."""
        if device_type == 'cpu':
            return torch.get_autocast_cpu_dtype()
        return torch.get_autocast_gpu_dtype()


if hasattr(torch.amp, 'GradScaler'):  # remove when torch >= 2.3 is required
    GradScaler = torch.amp.GradScaler
else:

    def GradScaler(device: str = 'cuda', **settings: Any) -> torch.cuda.amp.GradScaler:
        """A scaler for CUDA; away from it one that does nothing."""
        enabled = settings.pop('enabled', True) and device == 'cuda'
        return torch.cuda.amp.GradScaler(enabled=enabled, **settings)


if hasattr(_pytree, 'tree_leaves'):  # remove when torch >= 2.2 is required
    tree_leaves = _pytree.tree_leaves
else:

    def tree_leaves(tree: Any) -> list[Any]:
        """What is in nested lists, tuples and dictionaries."""
        return _pytree.tree_flatten(tree)[0]


def start_of_event(event: Any) -> int:
    """When an event of the profiler began."""
    # remove when torch >= 2.3 is required
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()


try:  # remove when torch >= 2.2 is required
    torch.eye(1, dtype=torch.bfloat16)
    eye = torch.eye
except RuntimeError:

    def eye(n: int, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """``torch.eye``, in half precision on CPUs too."""
        return torch.eye(n, device=device).to(dtype)


@functools.cache
def half_types() -> tuple[torch.dtype, ...]:
    """Types that autocast takes on CPUs; all since torch 2.2."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it warns of what it refuses
        try:
            with torch.autocast('cpu', torch.float16):
                return torch.bfloat16, torch.float16
        except RuntimeError:
            return (torch.bfloat16,)


# remove when torch >= 2.4 is required: Dynamo does not know much of the Python that we use
COMPILES = hasattr(torch.library, 'custom_op')

# remove when torch >= 2.6 is required: the exporters to ONNX before it write other numbers, or fail
EXPORTS_ONNX = hasattr(getattr(torch.export, 'Dim', None), 'DYNAMIC')


def compiled_if_possible(function: F) -> F:
    """Let torch.compile leave a function as it is where Dynamo would fail within it."""
    return function if COMPILES else torch.compiler.disable(function)


def getenv(name: str, default: str = '') -> str:
    """``os.environ.get`` for functions that are compiled."""
    return os.environ.get(name, default)


# remove when torch >= 2.6 is required: Dynamo fails at os.environ
if not MARKS_EXPORTS:
    # Dynamo stores the result as a global of the compiled function, under the name of this one
    # ('sub_getenv' for '_getenv'): without the underscore it would replace an imported getenv
    @torch.compiler.assume_constant_result
    def _getenv(name: str, default: str = '') -> str:
        return os.environ.get(name, default)

    getenv = _getenv


@contextlib.contextmanager
def flop_counter(model: torch.nn.Module, formulas: dict[Any, Callable]) -> Iterator[Any]:
    """Count the FLOPs of operators for every module of a model that is called in the block.

    Before torch 2.4 (remove when it is required) the counter has hooks and autograd functions on
    the modules that it is given; these are hooks on all modules, which change no result.

    Yields:
        torch's ``FlopCounterMode``.
    """
    from torch.utils import flop_counter

    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=formulas)
    if hasattr(flop_counter, 'ModuleTracker'):
        with counter:
            yield counter
        return
    top = type(model).__name__
    names = {module: f'{top}.{name}' if name else top for name, module in model.named_modules()}

    def enter(module: torch.nn.Module, inputs: tuple) -> None:
        counter.parents.append(names.get(module, type(module).__name__))

    def leave(module: torch.nn.Module, inputs: tuple, outputs: Any) -> None:
        counter.parents.pop()

    hooks = torch.nn.modules.module
    handles = [
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave),
    ]
    try:
        with counter:
            yield counter
    finally:
        for handle in handles:
            handle.remove()


def tracer() -> Any:
    """What records the graph while ``torch.export`` traces; None otherwise."""
    from torch.fx.experimental import proxy_tensor

    # remove when torch >= 2.6 is required: older ones export nothing of ours
    return proxy_tensor.get_proxy_mode() if hasattr(proxy_tensor, 'get_proxy_mode') else None


@functools.cache
def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Functions for FLOPs of operators: of their arguments and, as ``out_val``, their result."""
    from torch.utils import flop_counter

    if hasattr(flop_counter, 'flop_registry'):
        return flop_counter.flop_registry

    def of_shapes(formula: Callable[..., int]) -> Callable[..., int]:  # torch 2.1
        def of_tensors(*args: Any, out_val: Any = None, **named: Any) -> int:
            args, named, out = _pytree.tree_map(flop_counter.get_shape, (args, named, out_val))
            return formula(*args, out_shape=out, **named)

        return of_tensors

    return {name: of_shapes(formula) for name, formula in flop_counter.flop_mapping.items()}


if MARKS_EXPORTS:  # remove when torch >= 2.6 is required

    def exports() -> bool:
        """Whether ``torch.export`` traces."""
        # not torch.compiler.is_exporting(), which Dynamo of torch <= 2.11 takes to be always true
        return torch.compiler._is_exporting_flag

    @contextlib.contextmanager
    def as_if_exporting() -> Iterator[None]:
        """Make :func:`exports` true for a block."""
        before, torch.compiler._is_exporting_flag = torch.compiler._is_exporting_flag, True
        try:
            yield
        finally:
            torch.compiler._is_exporting_flag = before
else:
    _exporters = {'torch._export', 'torch.export', 'torch.export._trace'}
    _as_if = False

    def exports() -> bool:
        """Whether ``torch.export`` traces: it is found among the callers."""
        return _as_if or _called_by_exporter()

    @torch.compiler.assume_constant_result  # compilers run it instead of tracing it
    def _called_by_exporter() -> bool:
        frame = sys._getframe()
        while frame is not None:
            if frame.f_globals.get('__name__') in _exporters:
                return True
            frame = frame.f_back
        return False

    @contextlib.contextmanager
    def as_if_exporting() -> Iterator[None]:
        """Make :func:`exports` true for a block."""
        global _as_if
        before, _as_if = _as_if, True
        try:
            yield
        finally:
            _as_if = before
