"""Counters that trace, with our handles, against the counts from shapes alone."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.registry import MODELS

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.analysis.counters import count_by_tracing
from hybrid_mm.ops.export import exporting, with_our_operators

NAT = dict(
    type='hybrid_mm.NAT',
    arch=dict(
        embed_dim=8, depths=[1, 1, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None
    ),
    kernel_size=3,
)
PVT = dict(
    type='hybrid_mm.PVT',
    arch=dict(
        depths=[1] * 4,
        embed_dims=[8, 12, 16, 24],
        heads=[1, 2, 2, 3],
        mlp_ratios=[2] * 4,
        reductions=[8, 4, 2, 1],
    ),
    img_size=64,
)


@pytest.mark.parametrize('cfg', [NAT, PVT], ids=['nat', 'pvt'])
def test_mmengine_counts_as_the_tool(cfg):
    model = MODELS.build(cfg).eval()
    counted = count_by_tracing(FlopAnalyzer, model, torch.rand(1, 3, 64, 96)).total()
    assert counted == pytest.approx(complexity(model, (64, 96))[1], rel=0.02)


def test_fvcore_counts_as_the_tool():
    fvcore = pytest.importorskip('fvcore.nn')
    model = MODELS.build(NAT).eval()
    counted = count_by_tracing(fvcore.FlopCountAnalysis, model, torch.rand(1, 3, 64, 96)).total()
    assert counted == pytest.approx(complexity(model, (64, 96))[1], rel=0.02)


def test_our_operators_are_recorded_in_the_block_only():
    def seen(x):
        states.append(exporting())
        return x + 1

    states = []
    with with_our_operators():
        torch.jit.trace(seen, torch.rand(2), check_trace=False)
    torch.jit.trace(seen, torch.rand(2), check_trace=False)
    assert states == [False, True]
