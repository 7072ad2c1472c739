"""Measure several ways to compute the same thing in one run: agreement, time and memory.

A benchmark is a generator of :class:`Case`. All candidates of a case get the same inputs; if the
output or the gradients of one differ from those of the first, that is an error. Measured are

- time: the candidates take turns in every round, each round starting with another one, so that
  noise of the machine affects all of them alike. Times are medians over the rounds, ratios the
  medians of the quotients within a round.
- memory: the peak of allocations beyond the inputs, from the trace of torch's allocator
  (``max_memory_allocated`` on a GPU), and so the same in every run. Memory that a library takes
  from the system without the allocator is not included.

To add a benchmark, write a module with ``cases(device, dtype, quick)``, and ``PACKAGES`` with the
packages whose versions are reported, and add it to ``SUBCOMMANDS`` in ``tools/benchmark.py``; the
ratios refer to the first candidate.
"""

import gc
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import ProfilerActivity, profile

from hybrid_mm.compat.torch_api import start_of_event

__all__ = [
    'Case',
    'DisagreementError',
    'Row',
    'case_of_modules',
    'measure',
    'medians_and_ratios',
    'memory',
]

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # else each trace logs two lines; read at the first


TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class DisagreementError(ValueError):
    """The output or a gradient of a candidate differs from that of the first."""


@dataclass(frozen=True)
class Case:
    """Candidates for one computation.

    Attributes:
        name: Name of the case in tables.
        inputs: Tensors by the names of the candidates' arguments; those that require gradients
            are differentiated.
        candidates: Functions of the inputs that return one tensor; the first is the baseline.
        unavailable: Candidates that cannot be measured here, with the reason.
        pixels: Size of the map, if the case is a point of the curve of time against map size.
        kernel_size: Size of the kernel, if the case is a point of the curve of time against that.
        parameters: A candidate's own tensors, which are differentiated too, but not compared.
        slack: Multiple of the dtype's tolerance, for deep networks whose rounding errors add up.
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
    """Make a case of modules with the same parameters, all of which are differentiated.

    Args:
        name: Name of the case in tables.
        modules: Candidates by name. They use the parameters of the first, and device and dtype of
            x.
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

    ``inference`` is a forward pass without gradients, ``training`` a forward and a backward pass,
    ``kept`` the memory held between the two besides the output. Ratios are multiples of the
    baseline's figure. ``note`` is the reason if nothing was measured.

    Attributes:
        case: What is computed.
        candidate: The way in which it is computed.
        pixels: Pixels of a map.
        kernel_size: Size of the kernel or window.
        difference: Largest difference from the results of the baseline.
        inference_ms: Milliseconds of a forward pass without gradients.
        inference_ratio: The same as a multiple of the baseline's.
        training_ms: Milliseconds of a forward and a backward pass.
        training_ratio: The same as a multiple of the baseline's.
        inference_peak: Peak memory of the forward pass in bytes beyond the inputs.
        training_peak: Peak memory of both passes in bytes beyond the inputs.
        training_peak_ratio: The same as a multiple of the baseline's.
        kept: Bytes held between the two passes besides the output.
        rounds: Rounds of measurement.
        note: Reason if nothing was measured.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of the CPU or of a GPU does not suffice."""
    text = str(error)
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in text
    )


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Time of one call, on a GPU until its kernels have finished, with a cold cache."""
    if device.type == 'cuda':
        return _seconds_on_gpu(function, device)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _seconds_on_gpu(function: Callable[[], object], device: torch.device) -> float:
    """Time between two events. Clearing the cache before keeps the GPU busy while kernels queue."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _synchronize(device)
    _larger_than_cache(device).zero_()
    start.record()
    function()
    end.record()
    _synchronize(device)
    return start.elapsed_time(end) * 1e-3


@lru_cache(None)
def _larger_than_cache(device: torch.device) -> Tensor:
    return torch.empty(2**28, dtype=torch.uint8, device=device)


def turn(names: Sequence[str], number: int) -> list[str]:
    """Order of a round: each round starts with another name."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def in_turn(
    seconds: Callable[[str, str], float],
    modes: Sequence[str],
    names: Sequence[str],
    rounds: int,
    warm_up: bool = True,
    seconds_at_most: float | None = None,
) -> Iterator[dict[tuple[str, str], list[float]]]:
    """Measure all candidates in every round, each round starting with another one.

    Args:
        seconds: Measures a mode of a candidate once.
        modes: What is measured of each.
        names: The candidates.
        rounds: Number of rounds.
        warm_up: Begin with a round that does not count.
        seconds_at_most: Time after which no round begins, once three have counted.

    Yields:
        After each round that counts, all samples so far by mode and name.
    """
    samples: dict[tuple[str, str], list[float]] = {(mode, n): [] for mode in modes for n in names}
    end = time.perf_counter() + (math.inf if seconds_at_most is None else seconds_at_most)
    gc.collect()
    for number in range(-1 if warm_up else 0, rounds):
        if number >= 3 and time.perf_counter() > end:
            return
        gc.disable()
        try:
            for name in turn(names, number):
                for mode in modes:
                    taken = seconds(mode, name)
                    if number >= 0:
                        samples[mode, name].append(taken)
        finally:
            gc.enable()
        if number >= 0:
            yield samples


def medians_and_ratios(
    samples: Mapping[tuple[str, str], Sequence[float]], baseline: str
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Medians of samples, one per round, and medians of their quotients with those of the baseline.

    Args:
        samples: Samples by mode and name.
        baseline: The name that the quotients refer to.
    """
    ratios = {}
    for (mode, name), own in samples.items():
        quotients = [a / b for a, b in zip(own, samples[mode, baseline], strict=True)]
        ratios[mode, name] = statistics.median(quotients)
    return {key: statistics.median(own) for key, own in samples.items()}, ratios


def memory(function: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Bytes that a call allocates: the peak, and what remains while its result is held.

    Args:
        function: What is called once.
        device: Device on which it computes.
    """
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
    for event in sorted(events, key=start_of_event):
        left += event.nbytes()
        peak = max(peak, left)
    return peak, left


class _Runs:
    """Inference and training passes of the candidates of a case."""

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


def _difference(case: Case, name: str, found: tuple, expected: tuple, leaves: list[str]) -> float:
    """Largest relative difference, in the norm, of the output and of each gradient.

    Not the largest entry, as rounding may switch a ReLU and change single entries by much.
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
        DisagreementError: A candidate disagrees with the first.
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
        if not is_out_of_memory(error):
            raise
        row.note = 'out of memory'


def measure(case: Case, seconds: float = 20.0, rounds: int = 20) -> list[Row]:
    """Check that the candidates agree, then measure them.

    Args:
        case: The candidates and their inputs.
        seconds: Time for the rounds, of which at least three are run.
        rounds: Largest number of rounds.

    Returns:
        One row per candidate; those that are unavailable or out of memory have a note.

    Raises:
        DisagreementError: A candidate disagrees with the first.
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
    if not rows:
        return
    passes = dict(inference=runs.inference, training=runs.training)
    names = [row.candidate for row in rows]

    def once(mode: str, name: str) -> float:
        return seconds_of(partial(passes[mode], name), runs.device)

    *_, samples = in_turn(once, list(passes), names, rounds, warm_up=False, seconds_at_most=seconds)
    medians, ratios = medians_and_ratios(samples, names[0])
    for row in rows:
        for mode in passes:
            setattr(row, f'{mode}_ms', medians[mode, row.candidate] * 1e3)
            setattr(row, f'{mode}_ratio', ratios[mode, row.candidate])
        row.rounds = len(samples['training', row.candidate])


@contextmanager
def memory_limit(gib: float | None) -> Iterator[None]:
    """Let allocations on the CPU beyond this many GiB fail with out of memory."""
    if gib is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
