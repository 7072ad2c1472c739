"""Every family compiled by ``torch.compile``, against the same network in eager mode.

One network of each family (:mod:`hybrid_mm.zoo.families`) with one block per stage, at 224 x
224: the forward pass in eval mode, and forward and backward in training mode, where batch norms use
the statistics of the batch. Both candidates are the same module, one compiled as a single graph. A
graph break, or outputs or gradients that disagree, end the run.
"""

import copy
from collections.abc import Iterator

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from hybrid_mm.benchmarks.core import Case
from hybrid_mm.zoo.families import families, shortened

PACKAGES = ()
SHAPE, QUICK_SHAPE = (4, 3, 224, 224), (2, 3, 64, 64)
QUICK = ('VAN',)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(QUICK_SHAPE if quick else SHAPE, generator=generator).to(device, dtype)
    for name, config in families().items():
        if quick and name not in QUICK:
            continue
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(shortened(config))).to(x)
        yield _case(f'{name}, {"x".join(map(str, (len(x), *x.shape[2:])))}', model, x)


def _case(name: str, model: nn.Module, x: Tensor) -> Case:
    torch._dynamo.reset()  # drop the graphs of the previous families
    compiled = torch.compile(model, fullgraph=True)

    def runner(network: nn.Module):
        def run(x: Tensor) -> Tensor:
            training = torch.is_grad_enabled()
            if model.training != training:
                model.train(training)
            return torch.cat([level.flatten() for level in network(x)])

        return run

    parameters = [p for p in model.parameters() if p.requires_grad]
    return Case(
        name,
        {'x': x.detach().requires_grad_()},
        {'eager': runner(model), 'compiled': runner(compiled)},
        parameters=dict.fromkeys(('eager', 'compiled'), parameters),
        slack=10,  # batch norms of few pixels magnify rounding
    )
