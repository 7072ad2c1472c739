"""LESA against its published formulation, which stores the logits and normalises them.

The whole operator with positions per axis, all weights differentiated: with frozen norms as in the
paper's detectors, and with statistics of the batch, which the published formulation computes from
the logits and ours from second moments of queries, keys and tables.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid_mm.benchmarks.core import Case, case_of_modules
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.ops.positions import resize_relative_table

PACKAGES = ()


# (N, C, H, W): the last two stages of ResNet-50 at 224 x 224, and at 1024 x 1024
SHAPES = ((4, 256, 14, 14), (1, 512, 32, 32), (1, 256, 64, 64))


class _Published(LESA2d):
    """The published formulation: stored logits of all pairs of pixels, and a batch norm on them."""

    def _axial(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        q, k, v = self._heads(x)
        maps = q.unflatten(3, (height, width))
        terms = []
        for name, equation, length in (
            ('rel_h', 'ngcxy,xuc->ngxyu', height),
            ('rel_w', 'ngcxy,yuc->ngxyu', width),
        ):
            place = torch.arange(length, device=x.device)
            table = resize_relative_table(getattr(self, name), length)
            table = table[place - place[:, None] + length - 1]
            terms.append(torch.einsum(equation, maps, table))
        rows, columns = terms
        position = (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        content = torch.einsum('ngci,ngcj->ngij', q, k)
        logits = self.norm_logits(torch.cat([content, position], 1))
        p = logits.unflatten(1, (2, self.groups)).sum(1).softmax(-1)
        out = torch.einsum('ngij,ngcj->ngci', p, v).flatten(1, 2)
        return self.norm_context(out).unflatten(2, (height, width))


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    for shape in ((2, 32, 6, 7),) if quick else SHAPES:
        for frozen in (True, False):
            yield _case(shape, frozen, device, dtype)


def _case(shape: tuple[int, ...], frozen: bool, device: torch.device, dtype: torch.dtype) -> Case:
    modules = {
        name: cls(shape[1], shape[2:]).train(not frozen)
        for name, cls in (('tiled', LESA2d), ('published', _Published))
    }
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    norms = 'frozen norms' if frozen else 'batch statistics'
    title = f'{norms}, {"x".join(map(str, shape))}'
    # the softmax cancels this bias: its gradient is rounding noise
    return case_of_modules(title, modules, x, constant=('norm_logits.bias',))
