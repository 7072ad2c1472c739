"""Measure several ways to compute the same thing in one run: agreement, time and memory.

A benchmark is a generator of :class:`Case`. Of every case the candidates get the same inputs; a
candidate whose output or gradients differ from the first one's is an error, not a row. Then

- time: the candidates take turns in every round, each round starting with another one, so that
  noise of the machine hits all alike. Given are medians over the rounds, and as ratios the medians
  of the quotients within a round.
- memory: from the trace of torch's allocator (``max_memory_allocated`` on a GPU), so exact and the
  same in every run: the largest sum of what is allocated beyond the inputs. Work space that a
  library takes from the system past the allocator is not seen.

To add a benchmark, write a module with ``cases(device, dtype, quick)`` and add it to
``SUBCOMMANDS`` in ``tools/benchmark.py``; the first candidate is what the ratios refer to.
"""

import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # else two lines per trace, read at the first one


TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class DisagreementError(ValueError):
    """A candidate computes something else than the first one."""


@dataclass(frozen=True)
class Case:
    """Candidates for one computation.

    Attributes:
        name: Line of the tables.
        inputs: Tensors by the names of the candidates' arguments; those that require gradients
            are differentiated.
        candidates: Functions of the inputs that return one tensor; the first is the baseline.
        unavailable: Candidates that cannot be measured here, with the reason.
        pixels: Size of the map, if the case is a point of a curve of time against size.
        kernel_size: Size of the kernel, if it is one of a curve of time against that.
        parameters: Tensors of a candidate's own that are differentiated as well, and not compared.
        slack: Multiple of the tolerance of the type, for deep networks, whose rounding adds up.
    """

    name: str
    inputs: Mapping[str, Tensor]
    candidates: Mapping[str, Callable[..., Tensor]]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    pixels: int | None = None
    kernel_size: int | None = None
    parameters: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    slack: float = 1.0


def case_of_modules(
    name: str,
    modules: Mapping[str, nn.Module],
    x: Tensor,
    *arguments: object,
    constant: Collection[str] = (),
    **curve: int,
) -> Case:
    """Case of modules with the same parameters, all of which are differentiated.

    Args:
        name: Line of the tables.
        modules: Candidates by name. They get the parameters of the first, and device and type of x.
        x: First argument of the modules.
        *arguments: Their further arguments.
        constant: Names of parameters without a gradient.
        **curve: See :class:`Case`.
    """
    modules = {name: module.to(x.device, x.dtype) for name, module in modules.items()}
    first = next(iter(modules.values()))
    names = {full.replace('.', '_'): full for full, _ in first.named_parameters()}
    inputs = {'x': x.detach().requires_grad_()}
    for short, full in names.items():
        inputs[short] = first.get_parameter(full).detach().requires_grad_(full not in constant)

    def run(module: nn.Module, x: Tensor, **weights: Tensor) -> Tensor:
        weights = {names[short]: weight for short, weight in weights.items()}
        return functional_call(module, weights, (x, *arguments))

    candidates = {name: partial(run, module) for name, module in modules.items()}
    return Case(name, inputs, candidates, **curve)


@dataclass
class Row:
    """Figures of one candidate: times in milliseconds, memory in bytes beyond the inputs.

    ``inference`` is a forward pass without gradients, ``training`` forward and backward, ``kept``
    what is held between the two besides the output. Ratios are multiples of the baseline's figure.
    ``note`` says why there are none.
    """

    case: str
    candidate: str
    pixels: int | None = None
    kernel_size: int | None = None
    difference: float | None = None
    inference_ms: float | None = None
    inference_ratio: float | None = None
    training_ms: float | None = None
    training_ratio: float | None = None
    inference_peak: int | None = None
    training_peak: int | None = None
    training_peak_ratio: float | None = None
    kept: int | None = None
    rounds: int = 0
    note: str = ''


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in text
    )


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def memory(function: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Bytes that a call allocates: the largest sum, and what is left while its result is held."""
    gc.collect()
    if device.type == 'cuda':
        _synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = function()
        _synchronize(device)
        left = torch.cuda.memory_allocated(device) - before
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return peak, left
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = function()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == '[memory]']
    del result
    peak = left = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        left += event.nbytes()
        peak = max(peak, left)
    return peak, left


class _Runs:
    """The passes of a case's candidates."""

    def __init__(self, case: Case):
        self.case = case
        self.leaves = [x for x in case.inputs.values() if x.requires_grad]
        self.device = next(iter(case.inputs.values())).device
        self.dy: Tensor | None = None

    def forward(self, name: str) -> Tensor:
        return self.case.candidates[name](**self.case.inputs)

    def inference(self, name: str) -> Tensor:
        with torch.no_grad():
            return self.forward(name)

    def training(self, name: str) -> tuple[Tensor, ...]:
        out = self.forward(name)
        if self.dy is None:
            generator = torch.Generator().manual_seed(0)
            self.dy = torch.randn(out.shape, generator=generator).to(out)
        if out.shape != self.dy.shape:
            raise DisagreementError(
                f'{self.case.name}: {name} gives an output of shape {tuple(out.shape)}, '
                f'the first candidate one of {tuple(self.dy.shape)}'
            )
        own = self.case.parameters.get(name, ())
        grads = torch.autograd.grad(out, [*self.leaves, *own], self.dy)
        return out.detach(), *grads[: len(self.leaves)]

    def seconds(self, function: Callable[[str], object], name: str) -> float:
        _synchronize(self.device)
        start = time.perf_counter()
        function(name)
        _synchronize(self.device)
        return time.perf_counter() - start


def _difference(case: Case, name: str, found: tuple, expected: tuple, leaves: list[str]) -> float:
    """Largest of the differences of outputs and gradients, each in its norm and relative to it.

    In the norm, as rounding may switch a ReLU and change a single entry by much.
    """
    worst = 0.0
    for what, a, b in zip(['output', *leaves], found, expected, strict=True):
        limit = case.slack * TOLERANCES[b.dtype]
        a, b = a.double(), b.double()
        error = ((a - b).norm() / b.norm().clamp_min(1e-30)).item()
        error = error if error == error else float('inf')
        if error > limit:
            what = what if what == 'output' else f'gradient of {what}'
            raise DisagreementError(
                f'{case.name}: {name} differs in the {what} by {error:.1e} of its norm '
                f'(allowed {limit:.0e}); it is not measured'
            )
        worst = max(worst, error)
    return worst


def check(case: Case) -> list[Row]:
    """Compare outputs and gradients of the candidates with those of the first.

    Returns:
        One row per candidate with the ``difference`` only; those that are unavailable or run out
        of memory have a note instead.

    Raises:
        DisagreementError: A candidate computes something else.
    """
    return _check(_Runs(case))


def _check(runs: _Runs) -> list[Row]:
    case, expected = runs.case, None
    leaves = [n for n, x in case.inputs.items() if x.requires_grad]
    rows = []
    for name in case.candidates:
        row = Row(case.name, name, case.pixels, case.kernel_size)
        rows.append(row)
        with _out_of_memory_is_a_note(row):
            found = runs.training(name)
            expected = expected or found
            row.difference = _difference(case, name, found, expected, leaves)
    for name, reason in case.unavailable.items():
        rows.append(Row(case.name, name, case.pixels, case.kernel_size, note=reason))
    return rows


@contextmanager
def _out_of_memory_is_a_note(row: Row) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        row.note = 'out of memory'


def measure(case: Case, seconds: float = 20.0, rounds: int = 20) -> list[Row]:
    """Check that the candidates agree, then measure them.

    Args:
        case: What to measure.
        seconds: Time for the rounds; three are made in any case.
        rounds: Largest number of rounds.

    Returns:
        One row per candidate, those that are unavailable or out of memory with a note.

    Raises:
        DisagreementError: A candidate computes something else.
    """
    runs = _Runs(case)
    rows = _check(runs)
    for row in rows:
        if not row.note:
            with _out_of_memory_is_a_note(row):
                _memory(runs, row)
    usable = [row for row in rows if not row.note]
    _times(runs, usable, seconds, rounds)
    for row in usable:
        row.training_peak_ratio = row.training_peak / usable[0].training_peak
    return rows


def _memory(runs: _Runs, row: Row) -> None:
    name = row.candidate
    row.inference_peak, _ = memory(lambda: runs.inference(name), runs.device)
    row.training_peak, _ = memory(lambda: runs.training(name), runs.device)
    _, left = memory(lambda: runs.forward(name), runs.device)
    row.kept = left - runs.dy.numel() * runs.dy.element_size()


def _times(runs: _Runs, rows: list[Row], seconds: float, rounds: int) -> None:
    passes = dict(inference=runs.inference, training=runs.training)
    names = [row.candidate for row in rows]
    samples = {(kind, name): [] for kind in passes for name in names}
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for i in range(rounds if names else 0):
            first = i % len(names)
            for name in (*names[first:], *names[:first]):
                for kind, function in passes.items():
                    samples[kind, name].append(runs.seconds(function, name))
            if i >= 2 and time.perf_counter() > end:
                break
    finally:
        gc.enable()
    for row in rows:
        for kind in passes:
            own, base = samples[kind, row.candidate], samples[kind, names[0]]
            setattr(row, f'{kind}_ms', statistics.median(own) * 1e3)
            quotients = [a / b for a, b in zip(own, base, strict=True)]
            setattr(row, f'{kind}_ratio', statistics.median(quotients))
            row.rounds = len(own)


@contextmanager
def memory_limit(gib: float | None) -> Iterator[None]:
    """Let allocations on the CPU beyond this many GiB fail instead of troubling the machine."""
    if gib is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
