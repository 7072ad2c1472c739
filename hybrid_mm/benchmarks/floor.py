"""How much of the machine's peak the operators reach, at the shapes of the papers.

The peaks are measured in the same run, in turns with the operators: multiplications per second of a
product of two matrices, bytes per second of a large copy. The floor of an operator is the time that
its definition needs at these: the larger one of its multiplications at the first rate, and of its
inputs and results, moved once, at the second. The backward pass is that of the definition as well:
logits again, and one product for each factor. Times are those of the process on its CPUs, so that
another process on the machine disturbs them less.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_mm.benchmarks.core import in_turn, medians_and_ratios
from hybrid_mm.layers.convolution.peripheral_convolution import sharing_grid
from hybrid_mm.ops.depthwise_convolution import depthwise_convolution
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.local_attention import block_attention, global_attention, local_attention
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.ops.vector_attention.tiled import aggregate_taps

PACKAGES = ()
HEAD = ('operator', 'pass', 'ms', 'billion multiplications', 'MB', 'bound by', 'share of the peak')
_SIDE, _COPY = 1024, 2**26  # of the product's matrices; bytes of the copy, beyond caches


@dataclass(frozen=True)
class Work:
    """An operator on inputs, and what its definition costs.

    Attributes:
        name: Operator, paper and shapes.
        inputs: Tensors by argument.
        run: The operator.
        forward: Multiplications of the forward pass.
        backward: Multiplications of the backward pass.
    """

    name: str
    inputs: Mapping[str, Tensor]
    run: Callable[..., Tensor]
    forward: int
    backward: int


@dataclass(frozen=True)
class Share:
    """What an operator reaches in one pass.

    Attributes:
        name: Operator, paper and shapes.
        direction: 'forward' or 'backward'.
        seconds: Measured time.
        multiplications: Those of the definition.
        moved: Bytes of the inputs and results of the pass.
        arithmetic: Seconds that the multiplications need at the peak.
        memory: Seconds that the bytes need.
    """

    name: str
    direction: str
    seconds: float
    multiplications: int
    moved: int
    arithmetic: float
    memory: float

    @property
    def share(self) -> float:
        """Fraction of the peak: the floor by the measured time."""
        return max(self.arithmetic, self.memory) / self.seconds

    def cells(self) -> list[str]:
        """Cells of its line of the table, in the order of ``HEAD``."""
        return [
            self.name,
            self.direction,
            f'{self.seconds * 1e3:.2f}',
            f'{self.multiplications / 1e9:.3f}',
            f'{self.moved / 2**20:.1f}',
            'arithmetic' if self.arithmetic > self.memory else 'memory',
            f'{self.share:.0%}',
        ]


def works(quick: bool = False) -> Iterator[Work]:
    """Yield the operators at the shapes of their papers.

    Args:
        quick: Small maps, to try the tool.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    def attention(
        name: str,
        run: Callable[..., Tensor],
        shape: tuple[int, int, int, int, int],
        keys: int,
        value_dim: int | None = None,
        stride: int = 1,
        **tables: Sequence[int],
    ) -> Work:
        n, heads, height, width, d = shape
        d_v = value_dim or d
        inputs = dict(
            q=normal(n, heads, -(-height // stride), -(-width // stride), d),
            k=normal(n, heads, height, width, d),
            v=normal(n, heads, height, width, d_v),
            **{key: normal(*table) for key, table in tables.items()},
        )
        pairs = inputs['q'][..., 0].numel() * keys
        title = f'{name}, {"x".join(map(str, shape))}'
        # backward: logits again, gradients of queries and keys; of weights and values
        return Work(title, inputs, run, pairs * (d + d_v), pairs * (3 * d + 2 * d_v))

    for n, heads, side in ((1, 2, 14),) if quick else ((4, 2, 56), (4, 8, 14), (1, 2, 200)):
        run = functools.partial(local_attention, window=7)
        shape = (n, heads, side, side, 32)
        yield attention('neighborhood attention (NAT), 7', run, shape, 49, bias=(heads, 13, 13))
    run = functools.partial(block_attention, block=8, halo=3)
    shape = (1, 2, 16, 16, 16) if quick else (4, 8, 56, 56, 16)
    tables = dict(rel_h=(1, 27, 16), rel_w=(1, 27, 16))
    yield attention('block attention (HaloNet), 8 + 2 x 3', run, shape, 14**2, **tables)
    shape = (1, 2, 7, 7, 32) if quick else (4, 4, 14, 14, 128)
    side, d = shape[2], shape[4]
    tables = dict(rel_h=(1, 2 * side - 1, d), rel_w=(1, 2 * side - 1, d))
    yield attention('global attention (BoTNet)', global_attention, shape, side**2, **tables)
    for stride in (1, 2):
        run = functools.partial(distance_attention, stride=stride)
        shape = (1, 2, 7, 7, 16) if quick else (4, 4 * stride, 14, 14, 16)
        side, d_v = shape[2], 32 * stride
        tables = dict(table=(shape[1], side, side))
        name = f'distance attention (LeViT), stride {stride}'
        yield attention(name, run, shape, side**2, d_v, stride, **tables)
    for kernel, n, channels, side in (
        ((13, 1, 4, 14),) if quick else ((51, 4, 46, 56), (51, 1, 46, 200))
    ):
        grid = sharing_grid(kernel, 5)
        inputs = dict(x=normal(n, channels, side, side), weight=normal(channels, *[len(grid)] * 2))
        products = inputs['x'].numel() * len(grid) ** 2
        name = f'peripheral convolution (PeLK), {kernel}, {n}x{channels}x{side}x{side}'
        run = functools.partial(grid_convolution, rows=grid)
        yield Work(name, inputs, run, products, 2 * products)
    for kernel, dilation in ((5, 1), (7, 3)):
        n, channels, side = (1, 4, 14) if quick else (4, 64, 56)
        inputs = dict(x=normal(n, channels, side, side), weight=normal(channels, 1, *[kernel] * 2))
        run = functools.partial(depthwise_convolution, dilation=(dilation, dilation))
        products = inputs['x'].numel() * kernel**2
        name = f'depthwise convolution (VAN), {kernel}, dilation {dilation}'
        yield Work(f'{name}, {n}x{channels}x{side}x{side}', inputs, run, products, 2 * products)

    yield from _by_windows(normal, quick)


def _by_windows(normal: Callable[..., Tensor], quick: bool) -> Iterator[Work]:
    """Sums over windows by weights that a layer has computed before."""
    n, channels, side = (1, 8, 14) if quick else (4, 64, 56)
    pixels = n * side**2
    title = f'{n}x{channels}x{side}x{side}'

    maps, taps, kernel = 12, 9, 3  # 4 heads of queries, keys and values
    inputs = dict(
        x=normal(n, maps, channels // 4, side, side),
        fc=normal(taps, maps),
        bias=normal(taps),
        weight=normal(channels, taps, kernel, kernel),
    )
    products = pixels * (channels // 4) * taps * (maps + 4 * kernel**2)
    yield Work(f'mixed shift (ACmix), {title}', inputs, mixed_shift, products, 2 * products)

    heads, kernel = 4, 7
    inputs = dict(
        hidden=normal(n, channels, side, side),
        v=normal(n, channels, side, side),
        weight=normal(heads * kernel**2, channels),
        bias=normal(heads * kernel**2),
    )
    run: Callable[..., Tensor] = functools.partial(ghost_attention, heads=heads, kernel_size=kernel)
    products = pixels * channels * kernel**2 * (heads + 1)
    yield Work(f'ghost attention (ELSA), {kernel}, {title}', inputs, run, products, 2 * products)

    queries, kernel = 2, 3
    inputs = dict(
        scores=normal(n, queries, heads, side, side),
        values=normal(n, channels, side, side),
        bias=normal(queries, heads, kernel, kernel),
        scale=normal(queries, heads, kernel, kernel),
    )
    products = pixels * channels * queries * kernel**2
    name = f'learned queries (QnA), {kernel}, {title}'
    yield Work(name, inputs, learned_query_attention, products, 2 * products)

    kernel, groups = 7, channels // 8
    inputs = dict(
        weights=normal(n, groups, kernel**2, side, side),
        values=normal(n, channels, side + kernel - 1, side + kernel - 1),
    )
    run = functools.partial(aggregate_taps, kernel_size=kernel, stride=1, dilation=1)
    products = pixels * channels * kernel**2
    yield Work(f'aggregation (SAN), {kernel}, {title}', inputs, run, products, 2 * products)


def _seconds(function: Callable[[], object], least: float) -> float:
    """CPU seconds of a call, over as many calls as take ``least`` seconds."""
    calls, start = 0, time.process_time()
    while True:
        function()
        calls += 1
        taken = time.process_time() - start
        if taken >= least:
            return taken / calls


def tables(
    wanted: Callable[[str], bool], rounds: int, seconds: float, quick: bool
) -> Iterator[list[str]]:
    """Measure the operators; yield the lines of the table in Markdown after each.

    Args:
        wanted: Whether an operator is measured.
        rounds: Rounds at most.
        seconds: Time of an operator; at least three rounds are run, unless ``rounds`` is less.
        quick: Small maps, to try the tool.
    """
    found: list[Share] = []
    peaks: list[Mapping[str, float]] = []
    for work in works(quick):
        if wanted(work.name):
            times, rates = measure(work, rounds, seconds, 1e-3 if quick else 0.05)
            found += shares(work, times, rates)
            peaks.append(rates)
            yield table(found, peaks)


def measure(
    work: Work, rounds: int = 5, seconds: float = 20.0, least: float = 0.05
) -> tuple[dict[str, float], ...]:
    """Times of an operator and of the peaks, in turns: medians.

    Args:
        work: The operator.
        rounds: Number of rounds at most.
        seconds: Time for them; at least three are run.
        least: CPU seconds of a sample.

    Returns:
        ({'forward': seconds, 'both': seconds}, {'multiplications': per second, 'bytes': per
        second}).
    """
    a, b = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    source = torch.rand(_COPY // 4)
    target = torch.empty_like(source)
    leaves = list(work.inputs.values())
    with torch.no_grad():
        dy = torch.ones_like(work.run(**work.inputs))

    def forward() -> None:
        with torch.no_grad():
            work.run(**work.inputs)

    def both() -> None:
        torch.autograd.grad(work.run(**work.inputs), leaves, dy)

    calls = dict(
        forward=forward, both=both, product=lambda: a @ b, copy=lambda: target.copy_(source)
    )

    def once(mode: str, name: str) -> float:
        return _seconds(calls[name], least)

    *_, samples = in_turn(once, [''], list(calls), rounds, seconds_at_most=seconds)
    medians, _ = medians_and_ratios(samples, 'product')
    # a copy reads and writes
    peaks = dict(
        multiplications=_SIDE**3 / medians['', 'product'], bytes=2 * _COPY / medians['', 'copy']
    )
    return {name: medians['', name] for name in ('forward', 'both')}, peaks


def shares(work: Work, times: Mapping[str, float], peaks: Mapping[str, float]) -> list[Share]:
    """Fractions of the peak of both passes.

    Args:
        work: The operator.
        times: Seconds of 'forward' and of 'both' passes.
        peaks: 'multiplications' and 'bytes' per second.
    """
    with torch.no_grad():
        result = work.run(**work.inputs)
    given, out = (
        sum(t.numel() * t.element_size() for t in ts) for ts in (work.inputs.values(), [result])
    )
    passes = (
        ('forward', times['forward'], work.forward, given + out),
        # the inputs and the gradient of the result are read, gradients of the inputs written
        ('backward', times['both'] - times['forward'], work.backward, 2 * given + out),
    )
    return [
        Share(
            work.name,
            direction,
            seconds,
            count,
            moved,
            count / peaks['multiplications'],
            moved / peaks['bytes'],
        )
        for direction, seconds, count, moved in passes
    ]


def table(found: Sequence[Share], peaks: Sequence[Mapping[str, float]]) -> list[str]:
    """Lines of the table in Markdown, below the range of the peaks that it refers to.

    Args:
        found: Its lines.
        peaks: The peaks measured with each operator.
    """
    rates = [[p[key] / 1e9 for p in peaks] for key in ('multiplications', 'bytes')]
    low_high = [f'{min(r):.1f} to {max(r):.1f}' for r in rates]
    return [
        f'Peaks in this run: {low_high[0]} billion multiplications and {low_high[1]} billion bytes '
        'per second.\n',
        '| ' + ' | '.join(HEAD) + ' |',
        '|' + '---|' * len(HEAD),
        *('| ' + ' | '.join(share.cells()) + ' |' for share in found),
    ]
