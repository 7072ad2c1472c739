"""Layers and networks under autocast against the plain formulation in single precision."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.benchmarks.gpu.capture import captured
from hybrid_mm.benchmarks.gpu.compare import (
    differentiated,
    exact_float32,
    interpreter,
    watched,
)
from hybrid_mm.benchmarks.gpu.task import Failed, Options
from hybrid_mm.ops.dispatch import ALGORITHMS, default_impl

# Relative error in the norm of a result or a gradient, by the type of autocast. Where the plain
# formulation in that type is less accurate, as in a deep network, so may ours be: its error there,
# and nine tenths of its errors, count threefold, and sixfold for gradients of a few numbers.
TOLERANCES = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}
_AS_BAD, _FEW = 3.0, 16
_FLOOR = (
    1e-2  # gradients smaller than this share of the mean one are noise, as of a bias before a norm
)


def algorithm(options: Options) -> str:
    """What operators take: on a GPU what users get, on a CPU kernels in Triton's interpreter."""
    kernels = any('triton' in names for names in ALGORITHMS.values())
    return 'triton' if options.device == 'cpu' and kernels else 'auto'


def check(
    make: Callable[[], nn.Module],
    shape: Sequence[int],
    options: Options,
    dtype: torch.dtype,
    mode: str = 'eager',
    impl: str = 'auto',
) -> tuple[str, dict[str, Any]]:
    """Compare results and the gradients of the input and of all parameters, in eval mode.

    Args:
        make: Makes the module.
        shape: Shape of its input.
        options: The device.
        dtype: Type of autocast, float32 for none.
        mode: 'eager', 'compiled' or 'CUDA graph'.
        impl: Algorithm of all operators that have it.

    Raises:
        Failed: A difference, or a kernel that did not run.
    """
    device = torch.device(options.device)
    torch.manual_seed(0)
    module = make()
    module.eval()  # returns None in some networks
    _enliven(module)
    module.to(device)
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(1)).to(device)
    on_cpu = impl == 'triton' and device.type == 'cpu'
    with exact_float32():
        with interpreter(on_cpu), default_impl(impl), watched():
            names, found = _run(module, x, dtype, mode, options)
        with default_impl('reference'):
            _, expected = _run(module, x, torch.float32)
            plain = expected if dtype == torch.float32 else _run(module, x, dtype)[1]
    return _compare(names, found, expected, plain, TOLERANCES[dtype])


@torch.no_grad()
def _enliven(module: nn.Module) -> None:
    """Give numbers to what starts near zero, as layer scales and tables: it hides much."""
    for parameter in module.parameters():
        if parameter.abs().mean() < 1e-3:
            parameter.normal_(std=0.1)


def _run(
    module: nn.Module, x: Tensor, dtype: torch.dtype, mode: str = 'eager', options: Any = None
) -> tuple[list[str], list[Tensor]]:
    """Names, and results followed by gradients."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def call(x: Tensor, **_: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, dtype, dtype != torch.float32, cache_enabled=False):
            results = module(x)
        return (results,) if isinstance(results, Tensor) else tuple(results)

    if mode == 'CUDA graph':
        return captured(call, dict(x=x), parameters=parameters)
    if mode == 'compiled':
        torch._dynamo.reset()
        backend = 'aot_eager' if options.dry else 'inductor'
        call = torch.compile(call, fullgraph=True, backend=backend)
    return differentiated(call, dict(x=x), parameters=parameters)


def _compare(
    names: Sequence[str],
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    plain: Sequence[Tensor],
    tolerance: float,
) -> tuple[str, dict[str, Any]]:
    gradients = [x.norm() for name, x in zip(names, expected, strict=True) if 'gradient' in name]
    least = _FLOOR * torch.stack(gradients).median().item()
    sizes = [max(x.norm().item(), least) for x in expected]
    ours, theirs = (
        [
            (x.float() - y).norm().item() / size
            for x, y, size in zip(xs, expected, sizes, strict=True)
        ]
        for xs in (found, plain)
    )
    usual = sorted(theirs)[len(theirs) * 9 // 10]
    worst, wrong = (0.0, tolerance, ''), []
    for name, error, other, x in zip(names, ours, theirs, expected, strict=True):
        factor = _AS_BAD * (1 + (x.numel() < _FEW))
        limit = max(tolerance, factor * max(other, usual))
        if not error <= limit:
            wrong.append(f'{name} off by {error:.1e} (the plain formulation by {other:.1e})')
        if not error / limit <= worst[0] / worst[1]:
            worst = error, limit, name
    figures = dict(error=worst[0], limit=worst[1], errors=dict(zip(names, ours, strict=True)))
    if wrong:
        more = f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise Failed('; '.join(wrong[:3]) + f'{more}; allowed {tolerance:.0e}', **figures)
    return f'off by {worst[0]:.1e}, allowed {worst[1]:.0e} ({worst[2]})', figures
