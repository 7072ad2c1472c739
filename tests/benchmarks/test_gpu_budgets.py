"""What operators and networks may ask of a GPU, counted at 2 x 800 x 1216 on fake CUDA tensors.

The tables are in docs/benchmarks/gpu_counts.md.
"""

import pytest
import torch

from hybrid_mm.benchmarks.gpu_counts.measure import count_network, count_operator
from hybrid_mm.benchmarks.gpu_counts.networks import NETWORKS
from hybrid_mm.benchmarks.gpu_counts.operators import OPERATORS
from hybrid_mm.benchmarks.gpu_counts.tables import problems
from hybrid_mm.ops import kernels

pytestmark = pytest.mark.skipif(kernels.triton is None, reason='without Triton')

FORWARD, BACKWARD, BYTES = 3, 6, 3.0  # kernels, kernels, multiple of the ideal
KERNELS = 4000  # of a network, forward and backward
FEWER = {
    **dict.fromkeys(['NAT-mini', 'DiNAT-mini', 'DiNATs-T', 'PeLK-T', 'SLaK-T'], 1500),
    **dict.fromkeys(['R50-Halo8', 'CoAtNet-0-rw'], 1500),
    'RepLKNet-31B': 3500,
}
# one of each kind of layer; the others run with the slow tests
FEW = {
    *('NAT-mini', 'LeViT-128s', 'BoT50', 'R26-ACmix', 'SLaK-T', 'R50-Halo8', 'ELSA-Swin-T'),
    *('QnA-T', 'CoAtNet-0-rw'),
}
# heads of more than 32 channels in float32 do not fit into registers
WIDE = ('map BoTNet 1/16', 'block 8 halo 3 HaloNet 1/16')
# float32 by design: statistics of a batch norm, and logits without upper bound
ACCURATE = ('normalised_attention', 'evolving', 'ops/positions.py')
GRADIENT = 'a gradient'  # the place of all products of autograd, whose types are those of forward
FLOPS = 5e7  # more than products of parameters alone have


def others(counter, allowed, least=0):
    """Places of a counter without those allowed, and of no less than a number."""
    return {
        place: n
        for place, n in counter.items()
        if n >= least and not any(part in place for part in allowed)
    }


@pytest.mark.parametrize('amp', [torch.float16, None], ids=['float16', 'float32'])
@pytest.mark.parametrize(
    'operator',
    OPERATORS,
    ids=lambda op: op.name.replace(' ', '-'),
)
def test_operator(operator, amp):
    step = count_operator(operator, amp)
    assert not problems(step)
    assert step.repeated == 0, step.total.to_device
    if operator.budget and (amp or operator.name not in WIDE):
        f, b = step.forward, step.backward
        assert f.kernels <= FORWARD, f.operators
        assert b.kernels <= BACKWARD, b.operators
        ratios = [c.moved / ideal for c, ideal in zip((f, b), step.ideal, strict=True)]
        assert max(ratios) <= BYTES, ratios
        assert not step.total.islands
        assert not step.total.wide, 'maps of float32 under autocast'


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.part_of(f'network:{config["type"].split(".")[1]}'),
                *([] if name in FEW else [pytest.mark.slow]),
            ],
        )
        for name, config in NETWORKS.items()
    ],
)
def test_network(name):
    step = count_network(NETWORKS[name], torch.float16)
    total = step.total
    assert not problems(step)
    assert not total.to_device  # but tables, once
    assert total.kernels <= FEWER.get(name, KERNELS), total.operators.most_common(20)
    assert not others(total.islands, (*ACCURATE, GRADIENT), FLOPS)
    assert not others(total.wide, ACCURATE)
