"""Kernels in Triton: where they run, and what a launch does away from a GPU.

An operator's ``triton.py`` marks its kernels with :func:`kernel` and launches them as
``attend[grid](q, ..., BLOCK=64, num_warps=4)``. On CUDA tensors they are compiled at the first call
for every combination of types and constants. With ``TRITON_INTERPRET=1`` in the environment, which
is read at every launch, they run in Triton's interpreter on the CPU, slowly: that is how they are
tested. Within :func:`recorded` they do not run at all: launches are handed to a function, which is
how they are counted and compiled without a GPU.
"""

import functools
import re
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import getenv

__all__ = [
    'Launch',
    'available',
    'check_available',
    'forget_failures',
    'interpreted',
    'kernel',
    'launched',
    'recorded',
    'unavailable',
]

INTERPRET_VARIABLE = 'TRITON_INTERPRET'
_OLDEST = '3.2'  # the first with tl.gather
_missing = ''  # why there are no kernels

try:
    import triton

    if [*map(int, re.findall(r'\d+', triton.__version__)[:2])] < [*map(int, _OLDEST.split('.'))]:
        raise ImportError(f'{triton.__version__} is installed')
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction, _patch_lang, interpreter_builder
    from triton.runtime.jit import JITFunction
except ImportError as error:  # not everywhere; other algorithms do the work
    triton, tl = None, types.SimpleNamespace(constexpr=object)
    _missing = f'Triton {_OLDEST} or newer is needed, which torch 2.6 brings ({error})'
_CAPABILITY = (7, 5)  # the oldest GPUs with the instructions that Triton compiles to

R = TypeVar('R')


class Launch(NamedTuple):
    """A launch that was recorded instead of run.

    Attributes:
        kernel: The kernel.
        grid: Programs on each axis.
        arguments: Values of all of its arguments by name, constants and tensors alike.
        options: What is for the compiler: ``num_warps``, ``num_stages``.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]


_record: Callable[[Launch], None] | None = None
_failed: set[str] = set()  # operators whose kernels could not be compiled or run on this machine


@contextmanager
def recorded(record: Callable[[Launch], None]) -> Iterator[None]:
    """Give the launches of a block to a function instead of running them; results stay empty.

    Args:
        record: Called with each launch.
    """
    global _record
    before, _record = _record, record
    try:
        yield
    finally:
        _record = before


def interpreted() -> bool:
    """Whether launches run in Triton's interpreter."""
    return getenv(INTERPRET_VARIABLE) == '1'


def unavailable(operator: str, *tensors: Tensor | None) -> str | None:
    """Why the kernels of an operator cannot work on tensors, or None if they can.

    Args:
        operator: Its name, a key of :data:`~hybrid_mm.ops.dispatch.ALGORITHMS`.
        tensors: Its inputs.
    """
    given = [x for x in tensors if x is not None]
    if triton is None:
        return _missing
    if interpreted():
        return None
    if operator in _failed:
        return 'its kernels could not be compiled or run on this GPU'
    if not all(x.is_cuda for x in given):
        return f'tensors on {", ".join(sorted({str(x.device) for x in given}))}, not on a GPU'
    if any(x.dtype == torch.float64 for x in given):
        return 'numbers of type float64'
    return _old_device(given[0].device)


def available(operator: str, *tensors: Tensor | None) -> bool:
    """Whether 'auto' may take the kernels of an operator: on a GPU, in single or half precision.

    Args:
        operator: Key of :data:`~hybrid_mm.ops.dispatch.ALGORITHMS`.
        *tensors: Its inputs; those that are None do not count.
    """
    on_gpu = all(x.is_cuda for x in tensors if x is not None)
    return on_gpu and unavailable(operator, *tensors) is None


def check_available(operator: str, *tensors: Tensor | None) -> None:
    """Check that the kernels of an operator can work on tensors.

    Args:
        operator: Key of :data:`~hybrid_mm.ops.dispatch.ALGORITHMS`.
        *tensors: Its inputs; those that are None do not count.

    Raises:
        RuntimeError: They cannot.
    """
    reason = unavailable(operator, *tensors)
    if reason is not None:
        raise RuntimeError(
            f"impl='triton' of {operator}: {reason}; use impl='auto', which takes what there is"
        )


def launched(operator: str, run: Callable[[], R], otherwise: Callable[[], R]) -> R:
    """What kernels of an operator compute, or another algorithm where they do not work.

    An optional speed-up never ends a run: if a kernel cannot be compiled for this GPU or started on
    it, that is said once, and the other algorithm takes its place from then on.

    Args:
        operator: Name of the operator.
        run: Launches the kernels and returns their results.
        otherwise: Computes the same without them.
    """
    if operator in _failed and not interpreted():
        return otherwise()
    try:
        return run()
    except Exception as error:
        # a lack of memory is the caller's; errors of the device make all later results void
        memory = torch.cuda.OutOfMemoryError
        fatal = (memory, getattr(torch, 'AcceleratorError', memory))
        if isinstance(error, fatal) or interpreted() or _record is not None:
            raise
        _failed.add(operator)
        warnings.warn(
            f'{operator}: a Triton kernel could not be compiled or started, slower algorithms take '
            f'its place from now on ({type(error).__name__}: {error})',
            stacklevel=2,
        )
        return otherwise()


def forget_failures() -> list[str]:
    """Operators whose kernels did not work, and try them again from now on."""
    failed = sorted(_failed)
    _failed.clear()
    return failed


def power_of_two(n: int) -> int:
    """The power of two that holds n: what sides of blocks are."""
    return 1 << (n - 1).bit_length()


def product_side(n: int) -> int:
    """The power of two that holds n, at least 16: what sides of products of matrices are."""
    return max(16, power_of_two(n))


@torch.compiler.assume_constant_result  # compiled graphs need not trace how this is found out
def _old_device(device: torch.device) -> str | None:
    return _ask_device(device)


@functools.lru_cache(None)
def _ask_device(device: torch.device) -> str | None:
    if not torch.cuda.is_available():  # shapes alone, as launches are counted
        return None
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _CAPABILITY:
        return f'a GPU of compute capability {capability}, at least {_CAPABILITY} is needed'
    return None


if triton is not None:

    class Kernel(JITFunction):
        """A kernel, or a function that kernels call."""

        def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
            """Launch it, or do what stands for a launch."""
            if _record is not None:
                options = {k: v for k, v in kwargs.items() if k not in self.arg_names}
                named = {k: v for k, v in kwargs.items() if k in self.arg_names}
                arguments = dict(zip(self.arg_names, args, strict=False)) | named
                _record(Launch(self, grid, arguments, options))
                return None
            if interpreted():
                with _interpreter():
                    return _interpreted(self.fn).run(*args, grid=grid, warmup=warmup, **kwargs)
            # Triton starts kernels on the current GPU, wherever their tensors are
            tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            with torch.cuda.device(next(tensors).device):
                return super().run(*args, grid=grid, warmup=warmup, **kwargs)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call it from a kernel that runs in the interpreter."""
            return _interpreted(self.fn)(*args, **kwargs)

    @contextmanager
    def _interpreter() -> Iterator[None]:
        """Let kernels call Triton's own functions, such as tl.sum, and leave no trace.

        Triton makes them callable, or not, when it is imported. What the interpreter puts in the
        place of the language's words within them it would leave there, and nothing would compile
        any more. Products of bfloat16 it would take for products of the bits.
        """
        multiply = interpreter_builder.create_dot

        def dot(a: Any, b: Any, *others: Any) -> Any:
            a, b = (
                interpreter_builder.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x
                for x in (a, b)
            )
            return multiply(a, b, *others)

        words = types.SimpleNamespace(__globals__={'tl': tl, 'core': tl.core})
        scope, call = _patch_lang(words), JITFunction.__call__
        JITFunction.__call__ = lambda self, *args, **kwargs: _interpreted(self.fn)(*args, **kwargs)
        interpreter_builder.create_dot = dot
        try:
            yield
        finally:
            del interpreter_builder.create_dot
            JITFunction.__call__ = call
            scope.restore()

    @functools.lru_cache(None)
    def _interpreted(function: Callable) -> 'InterpretedFunction':
        return InterpretedFunction(function)


def kernel(function: Callable | None = None, *, sizes: str = '') -> Any:
    """Make a Triton kernel of a function, or a function that kernels call.

    Triton compiles a kernel anew when an integer becomes a multiple of 16, ceases to be one, or is
    1. That pays for strides, which tell how memory may be read; for numbers that follow the size of
    the image it would be a compilation in every other step of multi-scale training.

    Without Triton it stays a function that nobody can launch; see :func:`unavailable`.

    Args:
        function: The function.
        sizes: Names of the integers that are no strides, with spaces between: one compilation
            serves all their values.
    """
    if function is None:
        return functools.partial(kernel, sizes=sizes)
    return function if triton is None else Kernel(function, do_not_specialize=sizes.split())
