"""Every family, compiled by ``torch.compile``, beside itself.

One network of each family (:mod:`hybrid_mm.analysis.families`) with one block per stage, at 224 x
224: the forward pass in eval mode, and forward and backward in training mode, where batch norms use
the statistics of the batch. Both candidates are the same module; outputs and gradients agree or the
run ends. The name of a case says how often the graph breaks in training.
"""

import copy
from collections.abc import Iterator

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from hybrid_mm.analysis.benchmark import Case
from hybrid_mm.analysis.families import families, shortened

PACKAGES = ()
SHAPE, QUICK_SHAPE = (4, 3, 224, 224), (2, 3, 64, 64)
QUICK = ('VAN',)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(QUICK_SHAPE if quick else SHAPE, generator=generator).to(device, dtype)
    for name, config in families().items():
        if quick and name not in QUICK:
            continue
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(shortened(config))).to(x)
        torch._dynamo.reset()
        yield _case(f'{name}, {"x".join(map(str, (len(x), *x.shape[2:])))}', model, x)


def graph_breaks(model: nn.Module, x: Tensor) -> int:
    """How often the graph of a forward pass in training mode breaks."""
    mode = model.training
    try:
        return torch._dynamo.explain(model.train())(x).graph_break_count
    finally:
        model.train(mode)
        torch._dynamo.reset()


def _case(name: str, model: nn.Module, x: Tensor) -> Case:
    compiled = torch.compile(model)

    def runner(network: nn.Module):
        def run(x: Tensor) -> Tensor:
            training = torch.is_grad_enabled()
            if model.training != training:
                model.train(training)
            return torch.cat([level.flatten() for level in network(x)])

        return run

    breaks = graph_breaks(model, x)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Case(
        f'{name}, {breaks} graph breaks',
        {'x': x.detach().requires_grad_()},
        {'eager': runner(model), 'compiled': runner(compiled)},
        parameters=dict.fromkeys(('eager', 'compiled'), parameters),
    )
