"""Counters of others that trace, against the counts from shapes alone."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
from mmengine.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.analysis.counters import ptflops_hooks
from hybrid_mm.ops.export import exporting, with_our_operators
from hybrid_mm.ops.fusing import fused_despite_hooks, is_plain

SPEC = importlib.util.spec_from_file_location(
    'cases', Path(__file__).parents[1] / 'backbones' / 'test_all.py'
)
CONTRACT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CONTRACT)
NAT = dict(
    type='hybrid_mm.NAT',
    arch=dict(
        embed_dim=8, depths=[1, 1, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None
    ),
    kernel_size=3,
)
ELSA = dict(
    type='hybrid_mm.ELSASwin',
    arch=dict(embed_dim=12, depths=[1, 1, 1, 1], heads=[1, 2, 2, 4], group_width=4),
)


@pytest.mark.parametrize('cfg', [NAT, ELSA], ids=['nat', 'elsa'])
def test_mmengine_counts_as_the_tool(cfg):
    model = MODELS.build(cfg).eval()
    counted = get_model_complexity_info(model, (3, 64, 96), show_table=False, show_arch=False)
    assert counted['flops'] == pytest.approx(complexity(model, (64, 96))[1], rel=0.002)
    assert counted['activations'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('name', CONTRACT.CASES)
def test_mmengine_counts_all_networks(name):
    model = CONTRACT.build(CONTRACT.CASES[name]).eval()
    counted = FlopAnalyzer(model, torch.rand(1, 3, 64, 96)).total()
    assert counted == pytest.approx(complexity(model, (64, 96))[1], rel=0.002)


def test_fvcore_counts_as_the_tool():
    fvcore = pytest.importorskip('fvcore.nn')
    model = MODELS.build(NAT).eval()
    counted = fvcore.FlopCountAnalysis(model, torch.rand(1, 3, 64, 96)).total()
    assert counted == pytest.approx(complexity(model, (64, 96))[1], rel=0.002)


class _Ptflops(TorchDispatchMode):
    """What ptflops does with its ``custom_modules_hooks``."""

    def __init__(self, hooks):
        super().__init__()
        self.hooks, self.total = hooks, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if hook := self.hooks.get(func._overloadpacket):
            self.total += hook(args, out if isinstance(out, tuple) else (out,))
        return out


@pytest.mark.parametrize('cfg', [NAT, ELSA], ids=['nat', 'elsa'])
def test_ptflops_counts_as_the_tool(cfg):
    """ptflops itself where it is installed."""
    model, hooks = MODELS.build(cfg).eval(), ptflops_hooks()
    expected = complexity(model, (64, 96))[1]
    model.to('meta')
    with torch.no_grad(), _Ptflops(hooks) as counter:
        model(torch.rand(1, 3, 64, 96, device='meta'))
    assert counter.total == pytest.approx(expected, rel=0.002)
    if importlib.util.find_spec('ptflops'):
        from ptflops import get_model_complexity_info as ptflops

        settings = dict(as_strings=False, print_per_layer_stat=False, custom_modules_hooks=hooks)
        found = ptflops(model, (3, 64, 96), backend='aten', **settings)[0]
        assert found == pytest.approx(expected, rel=0.002)


def test_networks_of_others_are_counted_as_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    operators = FlopAnalyzer(model, torch.rand(1, 3, 8, 8)).by_operator()
    assert operators['conv'] == 3 * 4 * 64
    assert operators['batch_norm'] > 0


def test_handles_of_the_user_stay():
    analysis = FlopAnalyzer(MODELS.build(NAT).eval(), torch.rand(1, 3, 64, 96))
    analysis.set_op_handle('aten::layer_norm', lambda inputs, outputs: 1)
    assert analysis.by_operator()['layer_norm'] > 0


def test_hooks_that_were_there_before_the_counter_count():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *args: None)
    with fused_despite_hooks(model):
        model[1].register_forward_hook(lambda *args: None)
        assert [is_plain(layer) for layer in model] == [False, True]
    assert not is_plain(model[1])


def test_our_operators_are_recorded_in_the_block_only():
    def seen(x):
        states.append(exporting())
        return x + 1

    states = []
    with with_our_operators():
        torch.jit.trace(seen, torch.rand(2), check_trace=False)
    torch.jit.trace(seen, torch.rand(2), check_trace=False)
    assert states == [False, True]
