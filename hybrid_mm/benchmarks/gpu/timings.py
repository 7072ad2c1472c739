"""Operators at the sizes of the papers beside what else computes the same, in half precision."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.benchmarks import peers
from hybrid_mm.benchmarks.core import Case, check, measure
from hybrid_mm.benchmarks.gpu.compare import HALF, watched
from hybrid_mm.benchmarks.gpu.layers import LAYERS
from hybrid_mm.benchmarks.gpu.patterns import PATTERNS, Pattern, draw
from hybrid_mm.benchmarks.gpu.task import Failed, Options, Task
from hybrid_mm.ops.dispatch import ALGORITHMS

Candidate = Callable[..., Tensor]
_PLAIN = 'plain'
_SECONDS, _ROUNDS = 1.5, 25


def _local(
    window: int = 7, dilation: int = 1
) -> Callable[[Sequence[int], torch.device, bool], dict]:
    def make(size: Sequence[int], device: torch.device, biased: bool) -> dict[str, Any]:
        found = {'NATTEN': lambda: peers.natten(window, dilation, biased)}
        if dilation == 1:
            found['FlexAttention'] = lambda: peers.flex_window(*size[2:4], window, device)
        return found

    return make


def _whole(size: Sequence[int], device: torch.device, biased: bool) -> dict[str, Any]:
    found = {'FlexAttention': lambda: peers.flex_whole(*size[2:4], device)}
    if biased:
        found['SDPA with a mask'] = lambda: peers.masked_whole
    return found


# What is measured, the main operators first: name of the pattern, and makers of its peers.
PEERS: dict[str, Callable[..., dict[str, Any]] | None] = {
    'window 7 with bias (NAT)': _local(),
    'window 7 (NAT without bias)': _local(),
    '31 x 31 (RepLKNet)': None,
    '51 x 51, shared (PeLK)': None,
    'block 8 halo 3, relative (HaloNet)': None,
    'windows of 7, shifted (Swin)': None,
    'whole map with bias (CoAtNet)': _whole,
    'window 7 dilation 4 with bias (DiNAT)': _local(dilation=4),
    '51 x 5 (SLaK)': None,
    'window 7 over the border, relative (SASA)': None,
    'whole map, relative (BoTNet)': _whole,
    'window 7 mirrored (ACmix)': None,
    'window 7 (ELSA)': None,
    '7 x 7 (HorNet)': None,
    'by distance (LeViT)': None,
    'window 3 (QnA)': None,
    '4 heads (ACmix)': None,
    'whole map (ViTDet)': None,
    'pooled keys (MViTv2)': None,
    'in a chain (EA-AA-ResNet)': None,
}
# the plain formulation copies the keys of every query: too many of a whole map
_NO_PLAIN = ('whole map with bias (CoAtNet)', 'whole map, relative (BoTNet)')
_LAYERS = ('pairwise 7 (SAN)', 'patchwise 7 (SAN)')
_MAIN = 10


def tasks(options: Options) -> Iterator[Task]:
    """One task for an operator."""
    patterns = {pattern.name: pattern for pattern in PATTERNS}
    runs = {
        f'{patterns[name].operator}: {name}': partial(_operator, options, patterns[name], make)
        for name, make in PEERS.items()
    }
    runs |= {f'layer: {name}': partial(_layer, options, name) for name in _LAYERS}
    for i, (name, run) in enumerate(runs.items()):
        order = 30 + i / 100 if i < _MAIN else 40 + i / 100
        yield Task(f'timings/{name}', partial(time, options, run), 150.0, alone=True, order=order)


def time(options: Options, make: Callable[[], Case]) -> tuple[str, dict[str, Any]]:
    """Measure what computes the same; peers that fail or disagree are left out with the reason.

    Raises:
        Failed: Ours does not run, or not with its kernel.
    """
    case = make()
    first, *others = case.candidates
    good = {first: case.candidates[first]}
    reasons = dict(case.unavailable)
    with watched():
        check(replace(case, candidates=good))
    for name in others:
        both = good | {name: case.candidates[name]}
        both = {key: both[key] for key in (first, name)}
        try:
            note = check(replace(case, candidates=both, unavailable={}))[-1].note
        except Exception as error:  # whatever a peer may raise; a lost GPU is seen afterwards
            note = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        if note:
            reasons[name] = note
        else:
            good[name] = case.candidates[name]
    case = replace(case, candidates=good, unavailable=reasons)
    seconds, rounds = (0.0, 3) if options.dry else (_SECONDS, _ROUNDS)
    rows = measure(case, seconds, rounds)
    if rows[0].note:
        raise Failed(f'{first}: {rows[0].note}')
    figures = [
        f'{r.candidate} {r.inference_ms:.2f} / {r.training_ms:.2f}' for r in rows if not r.note
    ]
    missing = [f'no {r.candidate} ({r.note})' for r in rows if r.note]
    text = 'ms forward / with backward: ' + ', '.join(figures)
    return '; '.join([text, *missing]), dict(rows=[asdict(row) for row in rows])


def _operator(options: Options, pattern: Pattern, make: Callable[..., dict] | None) -> Case:
    """Ours as users get it, our other algorithms, peers, and the plain formulation."""
    device = torch.device(options.device)
    size = pattern.tiny if options.dry else pattern.paper
    problem = pattern.build(*size)
    dtype = torch.float32 if options.dry else HALF
    inputs = {
        name: x.to(device, dtype).requires_grad_() for name, x in draw(problem.inputs, 0).items()
    }
    candidates: dict[str, Candidate] = {'ours': _one(problem.call, 'auto')}
    for impl in ALGORITHMS[pattern.operator]:
        if impl not in ('triton', 'measured'):
            candidates[impl] = _one(problem.call, impl)
    unavailable = {}
    for name, maker in (make(size, device, 'bias' in inputs) if make else {}).items():
        try:
            candidates[name] = maker()
        except Exception as reason:  # whatever a peer may raise
            unavailable[name] = str(reason)
    if pattern.operator == 'grid_convolution':
        candidates['cuDNN'] = partial(peers.depthwise, **_keywords(problem.call))
    if pattern.name not in _NO_PLAIN:
        candidates[_PLAIN] = _one(problem.call, 'reference')
    name = f'{pattern.name}, {"x".join(map(str, size))}'
    # what kernels sum up, others round in between: the types' tolerance counts a few times
    return Case(name, inputs, candidates, unavailable, slack=3 * pattern.slack)


def _layer(options: Options, name: str) -> Case:
    layer = LAYERS[name]
    device = torch.device(options.device)
    shape = (1, layer.channels, 7, 9) if options.dry else (2, layer.channels, 200, 304)
    torch.manual_seed(0)
    module = layer.make().to(device).eval()
    modules = {'ours': module, _PLAIN: copy.deepcopy(module)}
    modules[_PLAIN].impl = 'reference'  # type: ignore[assignment]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

    def run(module: torch.nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(device.type, HALF, not options.dry):
            return module(x)

    parameters = {key: list(m.parameters()) for key, m in modules.items()}
    candidates = {key: partial(run, m) for key, m in modules.items()}
    title = f'{name}, {"x".join(map(str, shape))}'
    return Case(title, {'x': x}, candidates, parameters=parameters, slack=10)


def _one(call: Callable[..., Any], impl: str) -> Candidate:
    """All results of an operator by an algorithm, as one tensor."""

    def run(**inputs: Tensor) -> Tensor:
        found = call(**inputs, impl=impl)
        return found if isinstance(found, Tensor) else torch.cat([x.flatten() for x in found])

    return run


def _keywords(call: Callable[..., Any]) -> Mapping[str, Any]:
    return call.keywords if isinstance(call, partial) else {}
