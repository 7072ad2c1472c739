"""Every operator against the plain formulation in double precision."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.benchmarks.gpu.capture import captured
from hybrid_mm.benchmarks.gpu.compare import (
    DTYPES,
    HALF,
    TOLERANCES,
    compare,
    differentiated,
    exact_float32,
    interpreter,
    name_of,
    watched,
)
from hybrid_mm.benchmarks.gpu.patterns import PATTERNS, Pattern, draw, first_of_each
from hybrid_mm.benchmarks.gpu.task import Options, Skipped, Task
from hybrid_mm.ops import kernels
from hybrid_mm.ops.dispatch import ALGORITHMS


def tasks(options: Options) -> Iterator[Task]:
    """Kernels first, one pattern of every operator before all others."""
    firsts = list(first_of_each())
    for pattern in PATTERNS:
        late = 0 if pattern in firsts else 2
        for impl in ALGORITHMS[pattern.operator]:
            # the kernel, or what stands in its place
            other = impl != ALGORITHMS[pattern.operator][-1]
            for dtype in DTYPES:
                order = 50 if other else late + (dtype != HALF)
                yield _task(options, pattern, impl, dtype, 'eager', order)
        yield _task(options, pattern, 'auto', HALF, 'CUDA graph', 4)
        yield _task(options, pattern, 'auto', HALF, 'compiled', 6 if pattern in firsts else 60)


def _task(
    options: Options, pattern: Pattern, impl: str, dtype: torch.dtype, mode: str, order: float
) -> Task:
    mode_text = '' if mode == 'eager' else f'/{mode}'
    name = f'operators/{pattern.operator}: {pattern.name}/{impl}/{name_of(dtype)}{mode_text}'
    run = partial(check, options, pattern, impl, dtype, mode)
    return Task(name, run, 150.0 if mode == 'compiled' else 90.0, order=order)


def check(
    options: Options, pattern: Pattern, impl: str, dtype: torch.dtype, mode: str = 'eager'
) -> tuple[str, dict[str, Any]]:
    """Compare results and all gradients of an operator.

    Args:
        options: Device, and whether sizes are tiny.
        pattern: The operator and its inputs.
        impl: Algorithm.
        dtype: Type of the inputs.
        mode: 'eager', 'compiled' or 'CUDA graph'.

    Raises:
        Skipped: The algorithm does not run here.
        Failed: A difference, or a kernel that did not run.
    """
    problem = pattern.build(*(pattern.tiny if options.dry else pattern.small))
    device = torch.device(options.device)
    numbers = {name: x.to(dtype) for name, x in draw(problem.inputs, 0).items()}
    inputs = {name: x.to(device) for name, x in numbers.items()}
    in_interpreter = impl == 'triton' and device.type == 'cpu'
    with exact_float32(), interpreter(in_interpreter):
        if impl == 'triton':
            kernels.forget_failures()
            reason = kernels.unavailable(pattern.operator, *inputs.values())
            if reason:
                raise Skipped(reason)
        try:
            with watched():
                names, found = _run(partial(problem.call, impl=impl), inputs, mode, options)
        except RuntimeError as error:
            if str(error).startswith(f"impl='{impl}' needs"):
                raise Skipped(str(error)) from None
            raise
        exact = {name: x.double() for name, x in inputs.items()}
        _, expected = differentiated(partial(problem.call, impl='reference'), exact)
    return compare(names, found, expected, pattern.slack * TOLERANCES[dtype])


def _run(
    call: Any, inputs: dict[str, Tensor], mode: str, options: Options
) -> tuple[list[str], list[Tensor]]:
    if mode == 'compiled':
        torch._dynamo.reset()
        backend = 'aot_eager' if options.dry else 'inductor'
        return differentiated(torch.compile(call, fullgraph=True, backend=backend), inputs)
    if mode == 'CUDA graph':
        return captured(call, inputs)
    return differentiated(call, inputs)
