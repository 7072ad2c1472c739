"""Count what runs on a GPU below autograd: kernels, copies, waiting, bytes, arithmetic, memory."""

import functools
import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from hybrid_mm.benchmarks.gpu_counts.fake_cuda import HALF, Bodies
from hybrid_mm.compat.torch_api import flop_formulas, tree_leaves
from hybrid_mm.ops import kernels

LAUNCH_SECONDS = 5e-6


@dataclass(frozen=True)
class GPU:
    """Peak rates per second: bytes, and FLOPs by the kind of product."""

    bandwidth: float
    half: float
    tf32: float  # convolutions of float32 numbers, by default
    single: float


GPUS = {
    'A100': GPU(2.0e12, 312e12, 156e12, 19.5e12),
    'H200': GPU(4.8e12, 990e12, 494e12, 67e12),
}

# operators that start no kernel though they return no view
_FREE = frozenset({
    *('_unsafe_view', '_reshape_alias', 'lift_fresh', 'lift', 'detach', 'alias', 'set_', 'resize_'),
    *('empty', 'empty_like', 'new_empty', 'empty_strided', 'new_empty_strided', 'empty_permuted'),
    *('_assert_async', 'sym_size', '_fused_sdp_choice', 'record_stream', 'is_same_size'),
})  # fmt: skip
# operators that wait for the GPU, because the host needs a number or a shape
_WAITING = frozenset({
    *('_local_scalar_dense', 'nonzero', 'masked_select', 'is_nonzero', 'equal'),
    *('unique_consecutive', '_unique2', 'unique_dim'),
})  # fmt: skip
_INDEXING = frozenset(('index', 'index_put', 'index_put_', '_index_put_impl_'))
# operators that read as much of their first argument as they write
_PARTIAL = frozenset(('index', 'index_select', 'gather', 'embedding'))
_COPIES = frozenset(('_to_copy', 'copy_', '_copy_from'))
_TABLES = 'device_tables.py'
_PACKAGE = f'{Path(__file__).parents[2]}/'  # whatever the checkout is called


@dataclass
class Counts:
    """Counts of a section of a program.

    Attributes:
        kernels: Kernels, launches of Triton among them.
        launches: Launches of Triton.
        to_device: Copies from the host, without those of tables.
        tables: Copies of tables that stay on the device, at the first call with a size only.
        to_host: Copies to the host.
        waits: Operators for which the host waits.
        mixed: Operators on tensors of several devices.
        moved: Bytes that kernels read and write.
        flops: FLOPs by kind: 'half', 'single', 'tf32' (convolutions), 'fft'.
        islands: FLOPs of float32 products under autocast, by place in our code.
        wide: Launches of Triton under autocast on float32 alone, by operators on float32 alone.
        double: Kernels with results in double precision, by place.
        seconds: Time on each GPU if every kernel reached its peak rates, without launches.
        peak: Bytes of memory that the section took at most beside what was there before it.
        operators: Kernels by operator, and by the name of a Triton kernel.
        places: Kernels by place in our code; see :class:`Trace`.
    """

    kernels: int = 0
    launches: int = 0
    to_device: Counter[str] = field(default_factory=Counter)
    tables: int = 0
    to_host: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    moved: int = 0
    flops: Counter[str] = field(default_factory=Counter)
    islands: Counter[str] = field(default_factory=Counter)
    wide: Counter[str] = field(default_factory=Counter)
    double: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: 'Counts') -> 'Counts':
        """Counts of two sections; the peak is the larger one."""
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Counts(**sums | dict(peak=max(self.peak, other.peak)))


class Trace(Bodies):
    """Counts all operators on (fake) CUDA tensors within it.

    Bodies of our own operators run, so that their inside is counted; launches of Triton are
    recorded instead of run.

    Args:
        autocast: Whether float32 products are noted as islands.
        places: Note where in our code kernels come from; slow.
    """

    def __init__(self, autocast: bool = False, places: bool = False) -> None:
        super().__init__()
        self.counts = Counts()
        self.autocast, self.places = autocast, places
        self.label: str | None = None  # where kernels come from, if their frame does not tell
        self._memory = _Memory()
        self._operator: tuple[str, bool] | None = None

    @contextmanager
    def section(self) -> Iterator[Counts]:
        """Count a block on its own."""
        before, self.counts = self.counts, Counts()
        base = self._memory.restart()
        try:
            with self, kernels.recorded(self._launch):
                yield self.counts
        finally:
            self.counts.peak = self._memory.peak - base
            self.counts = before

    def call(self, func: Any, args: Sequence, kwargs: dict[str, Any]) -> Any:
        """Count an operator of torch and run it."""
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if name in _WAITING or (name in _INDEXING and any(map(_boolean, args[1]))):
            self.counts.waits[f'{name} at {_caller()}'] += 1
        try:
            out = func(*args, **kwargs)
        except Exception as error:
            if 'device' in str(error):
                self.counts.mixed.append(f'{name} at {_caller()}: {str(error)[:160]}')
            raise
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self._memory.note(outs)
        if name in _COPIES and self._count_copy(tensors[name == 'copy_'], outs[0]):
            return out
        made = outs and outs[0].is_cuda and any(t.numel() for t in outs)
        if made and not _is_view(func) and name not in _FREE:
            self._count_kernel(func, name, args, kwargs, tensors, outs)
        return out

    def body(self, func: Any, args: Sequence, kwargs: dict[str, Any]) -> Any:
        """Remember whose launches are counted."""
        types = {x.dtype for x in args if isinstance(x, Tensor) and x.is_floating_point()}
        before = self._operator
        self._operator = func._schema.name, torch.float32 in types and not types & set(HALF)
        try:
            return super().body(func, args, kwargs)
        finally:
            self._operator = before

    def _launch(self, launch: kernels.Launch) -> None:
        """Count a launch of Triton: every tensor is read or written once."""
        counts, name = self.counts, launch.kernel.fn.__name__
        tensors = [x for x in launch.arguments.values() if isinstance(x, Tensor)]
        distinct = {(_storage(x), x.storage_offset(), x.shape): x for x in tensors}.values()
        counts.launches += 1
        self._add(f'triton {name}', 1, sum(map(_bytes, distinct)), 0, 'single')
        for x in tensors:
            if not x.is_cuda:
                counts.mixed.append(f'launch of {name}: a tensor on {x.device}')
        half = any(x.dtype in HALF for x in tensors)  # also of a result
        if self.autocast and self._operator and self._operator[1] and not half:
            counts.wide[f'{self._operator[0]}, launch of {name}'] += 1

    def _count_copy(self, source: Tensor, target: Tensor) -> bool:
        """Count a copy, if it is one between host and device."""
        if target.is_cuda and not source.is_cuda:
            if _within(_TABLES):
                self.counts.tables += 1
            else:
                self.counts.to_device[_caller()] += 1
        elif source.is_cuda and not target.is_cuda:
            self.counts.to_host[_caller()] += 1
        return source.is_cuda != target.is_cuda

    def _count_kernel(
        self,
        func: Any,
        name: str,
        args: tuple,
        kwargs: dict,
        tensors: list[Tensor],
        outs: list[Tensor],
    ) -> None:
        counts = self.counts
        for t in tensors:  # numbers on the host are arguments of a kernel, more must be copied
            if not t.is_cuda and t.dim() > 0 and name not in _COPIES:
                counts.to_device[f'{name} at {_caller()}'] += 1
        number = sum(map(bool, args[-1])) if name == 'convolution_backward' else 1
        moved = sum(map(_bytes, outs))
        if name in _PARTIAL:
            moved *= 2
        elif name not in ('zero_', 'fill_'):
            read = tensors[1:] if name == 'copy_' else tensors
            moved += sum(_bytes(t) for t in read if t.is_cuda and t is not kwargs.get('out'))
        flops = _flops(func, name, args, kwargs, tensors, outs)
        dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
        kind = 'half' if dtype in HALF else 'tf32' if 'convolution' in name else 'single'
        if '_fft_' in name:
            kind = 'fft'
        self._add(name, number, moved, flops, kind)
        # Fourier transforms have no half precision at most sizes
        if self.autocast and flops and kind in ('single', 'tf32'):
            counts.islands[f'{name} at {self.label or _caller()}'] += flops
        if any(t.dtype in (torch.float64, torch.complex128) for t in outs):
            counts.double[f'{name} at {_caller()}'] += 1

    def _add(self, name: str, number: int, moved: int, flops: int, kind: str) -> None:
        counts = self.counts
        counts.kernels += number
        counts.operators[name] += number
        counts.moved += moved
        counts.flops[kind] += flops
        for gpu, rates in GPUS.items():
            rate = getattr(rates, 'single' if kind == 'fft' else kind)
            counts.seconds[gpu] += max(moved / rates.bandwidth, flops / rate)
        if self.places:
            counts.places[f'{self.label or _caller()} {name}'] += number


class _Memory:
    """Bytes of the storages on the GPU that are alive."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def restart(self) -> int:
        """Start a new peak from what there is."""
        self.peak = self.now
        return self.now

    def note(self, tensors: Sequence[Tensor]) -> None:
        """Note new storages of tensors."""
        for x in tensors:
            if isinstance(x, FakeTensor) and x.is_cuda:
                storage, key = x.untyped_storage(), _storage(x)
                if key not in self._alive:
                    size = storage.nbytes()
                    free = functools.partial(self._free, key, size)
                    self._alive[key] = weakref.ref(storage, free)
                    self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int, _: Any) -> None:
        if self._alive.pop(key, None) is not None:
            self.now -= size


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _bytes(x: Tensor) -> int:
    """Bytes of the numbers of a tensor that are in memory."""
    sides = (n for n, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return math.prod(sides) * x.element_size() if x.numel() else 0


def _boolean(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def _flops(
    func: Any, name: str, args: tuple, kwargs: dict, tensors: list[Tensor], outs: list[Tensor]
) -> int:
    if name == 'convolution_backward':  # torch's count knows no groups
        gradient, x, weight, *_ = args
        transposed = args[7]
        numbers = x.numel() if transposed else gradient.numel()
        return 2 * numbers * math.prod(weight.shape[1:]) * sum(map(bool, args[-1][:2]))
    if name in ('baddbmm', 'baddbmm_'):
        return 2 * args[1].numel() * args[2].shape[2]
    if '_fft_' in name:
        numbers = max(t.numel() for t in (*tensors, *outs))
        length = max(2, numbers // max(1, math.prod(outs[0].shape[:-2])))
        return int(5 * numbers * math.log2(length))
    count: Callable | None = flop_formulas().get(func.overloadpacket)
    out = outs[0] if len(outs) == 1 else outs
    return int(count(*args, **kwargs, out_val=out)) if count else 0


def own_file(text: str) -> str:
    """File of the package, but for those that count, that a text names last; '' if none."""
    _, found, rest = text.rpartition(_PACKAGE)
    return rest if found and '/gpu_counts/' not in rest else ''


def _caller() -> str:
    """Innermost place in our code, without this package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if own_file(name) and 'custom_op' not in name:
            return f'{own_file(name)}:{frame.f_lineno}'
        frame = frame.f_back
    return 'a gradient'


def _within(file: str) -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(file):
            return True
        frame = frame.f_back
    return False
