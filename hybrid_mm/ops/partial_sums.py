"""Gradients of parameters that a kernel leaves as partial sums, added up in one more launch."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hybrid_mm.ops.kernels import kernel, tl

_BLOCK = 32  # numbers of a program, and rows that it reads at a time
MOST = 4  # parameters


class PartialSums:
    """Memory for partial sums of the gradients of a few parameters, all side by side.

    No atomics: the same sums come out every time.

    Args:
        parameters: At most :data:`MOST`; None for those that are not there.
        parts: Number of partial sums, which are all written.
        device: Where.

    Attributes:
        memory: (parts, numbers of all parameters), float32.
    """

    def __init__(
        self, parameters: Sequence[Tensor | None], parts: int, device: torch.device
    ) -> None:
        self.parameters = [x for x in parameters if x is not None]
        sizes = [0 if x is None else x.numel() for x in parameters]
        self.ends = list(accumulate(sizes))
        self.starts = [end - size for end, size in zip(self.ends, sizes, strict=True)]
        self.memory = torch.empty(parts, self.ends[-1], dtype=torch.float32, device=device)

    def place(self, number: int) -> Tensor | None:
        """Where the partial sums of a parameter begin, or None where there is none."""
        start, end = self.starts[number], self.ends[number]
        return None if start == end else self.memory[:, start:]

    def total(self) -> list[Tensor]:
        """Gradients of the parameters that there are, contiguous and of their types."""
        found = [x.new_empty(x.shape) for x in self.parameters]
        outs = found + found[-1:] * (MOST - len(found))
        ends = list(accumulate(x.numel() for x in found))
        ends += ends[-1:] * (MOST - len(found))
        parts, count = self.memory.shape
        _add_up[(-(-count // _BLOCK),)](self.memory, *outs, *ends, parts, BLOCK=_BLOCK, num_warps=4)
        return found


@kernel(sizes='parts')
def _add_up(parts_ptr, a_ptr, b_ptr, c_ptr, d_ptr, a, b, c, d, parts, BLOCK: tl.constexpr):
    """Add up rows of d numbers; those up to a go to the first result, up to b to the second ..."""
    i, row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, BLOCK)[:, None]
    place = parts_ptr + row.to(tl.int64) * d + i[None, :]
    total = tl.full((BLOCK, BLOCK), 0, tl.float32)
    for first in range(0, parts, BLOCK):
        total += tl.load(place, mask=(first + row < parts) & (i < d)[None, :], other=0)
        place += BLOCK * d
    total = tl.sum(total, 0)
    tl.store(a_ptr + i, total.to(a_ptr.dtype.element_ty), mask=i < a)
    tl.store(b_ptr + i - a, total.to(b_ptr.dtype.element_ty), mask=(i >= a) & (i < b))
    tl.store(c_ptr + i - b, total.to(c_ptr.dtype.element_ty), mask=(i >= b) & (i < c))
    tl.store(d_ptr + i - c, total.to(d_ptr.dtype.element_ty), mask=(i >= c) & (i < d))
