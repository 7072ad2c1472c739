"""Whether results agree, and running things so that nothing goes unnoticed."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.benchmarks.gpu.task import Failed
from hybrid_mm.ops import kernels

# Relative error in the norm. Single entries may be off by ten times as much of their size and of
# the root mean square of all: a wrong pixel in a large map is hidden in a norm.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
DTYPES = tuple(TOLERANCES)
HALF = torch.float16  # what is checked first, and in every mode
_ENTRY = 10


def name_of(dtype: torch.dtype) -> str:
    """'float16' for torch.float16."""
    return str(dtype).removeprefix('torch.')


def error(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Relative error in the norm, and the largest of an entry by its size and the mean size."""
    if found.shape != expected.shape:
        raise Failed(f'shape {tuple(found.shape)} instead of {tuple(expected.shape)}')
    a, b = found.detach().double(), expected.detach().double()
    difference = (a - b).abs()
    if not torch.isfinite(difference).all():
        return float('inf'), float('inf')
    size = b.square().mean().sqrt().clamp_min(1e-30)
    norm = difference.square().mean().sqrt() / size
    return norm.item(), (difference / (size + b.abs())).max().item()


def compare(
    names: Sequence[str], found: Sequence[Tensor], expected: Sequence[Tensor], limit: float
) -> tuple[str, dict[str, Any]]:
    """Compare tensors with what they should be.

    Returns:
        A text, and the errors by name.

    Raises:
        Failed: One is off by more than the limit.
    """
    errors, wrong = {}, []
    for name, a, b in zip(names, found, expected, strict=True):
        norm, entry = error(a, b)
        errors[name] = norm
        if not (norm <= limit and entry <= _ENTRY * limit):
            wrong.append(f'{name} off by {norm:.1e}, an entry by {entry:.1e}')
    worst = max(errors.values())
    figures = dict(error=worst, limit=limit, errors=errors)
    if wrong:
        raise Failed(f'{"; ".join(wrong)}; allowed {limit:.0e}', **figures)
    return f'off by {worst:.1e}, allowed {limit:.0e}', figures


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Fail if a kernel of ours could not be compiled or started, and another algorithm helped.

    Raises:
        Failed: With the message of the kernel.
    """
    kernels.forget_failures()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        yield
    failed = kernels.forget_failures()
    if failed:
        texts = [str(w.message) for w in caught if 'Triton' in str(w.message)]
        said = ' '.join((texts[0] if texts else ', '.join(failed)).split())
        raise Failed(f'fell back to another algorithm: {said}')


@contextlib.contextmanager
def interpreter(needed: bool) -> Iterator[None]:
    """Let kernels run in Triton's interpreter within a block."""
    before = os.environ.get(kernels.INTERPRET_VARIABLE)
    if needed:
        os.environ[kernels.INTERPRET_VARIABLE] = '1'
    try:
        yield
    finally:
        if needed:
            os.environ.pop(kernels.INTERPRET_VARIABLE)
            if before is not None:
                os.environ[kernels.INTERPRET_VARIABLE] = before


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Products and convolutions in float32 without TF32."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def differentiated(
    function: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> tuple[list[str], list[Tensor]]:
    """Names and values of the results of a function, and of the gradients.

    Args:
        function: Function of the inputs that returns a tensor or several.
        inputs: All of them are differentiated.
        parameters: What else it uses and is differentiated.
    """
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    results = listed(function(**leaves))
    wanted = leaves | dict(parameters or {})
    grads = gradients(results, list(wanted.values()), cotangents(results))
    return names_of(results, wanted), [x.detach() for x in (*results, *grads)]


def listed(results: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Results of a function as a list."""
    return [results] if isinstance(results, Tensor) else list(results)


def names_of(results: Sequence[Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Names of results and gradients."""
    names = [f'result {i}' if i else 'result' for i in range(len(results))]
    return names + [f'gradient of {name}' for name in wanted]


def gradients(
    results: Sequence[Tensor], wanted: Sequence[Tensor], given: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of all that is wanted; zeros for what the results do not depend on."""
    found = torch.autograd.grad(results, wanted, given, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


def cotangents(results: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of results, the same for every type of numbers and device."""
    generator = torch.Generator().manual_seed(1)
    # rounded as the coarsest type, so that all types get the same
    return [torch.randn(x.shape, generator=generator).bfloat16().to(x) for x in results]
