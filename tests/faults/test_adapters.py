"""Layers that are replaced (LoRA, quantisation) or have hooks (CAM, pruning) take part."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune

from hybrid_mm.backbones import LeViT, RepLKNet
from hybrid_mm.backbones.cvt import QuickGELUMLP
from hybrid_mm.layers import DepthwiseConv2d
from hybrid_mm.layers.attention.stand_alone_attention import Projection
from hybrid_mm.layers.folded_norm import LinearNorm
from hybrid_mm.ops.fusing import fused_despite_hooks, is_plain

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LayerNorm, _BatchNorm, nn.GroupNorm, Projection)


def load(path):
    spec = importlib.util.spec_from_file_location(f'{path.parent.name}_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BACKBONES = load(ROOT / 'backbones' / 'test_all.py')
MODULES = load(ROOT / 'layers' / 'test_contract.py')
PLUGINS = load(ROOT / 'plugins' / 'test_plugins.py')


def awake(model):
    """In double precision, without zeros and dead ReLUs: nothing before them would be seen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.double().parameters():
            if not parameter.any():
                parameter.normal_(std=0.1, generator=generator)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = 1.0  # in eval mode it does what it did in training
                module.bias.uniform_(0.5, 1.5, generator=generator)
    return model


class Adapter(nn.Module):
    """A wrapper as peft has it: the weights of the layer can be read, and do not say all."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.rate = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.calls = 0

    @property
    def weight(self):
        return self.base_layer.weight

    @property
    def bias(self):
        return self.base_layer.bias

    def forward(self, x):
        self.calls += 1
        y = self.base_layer(x)
        return y + self.rate * (y + 1).square()


class Bare(Adapter):
    """One of which nothing can be read."""

    weight = bias = property(lambda self: (_ for _ in ()).throw(AttributeError('weight')))


def adapted(model, kind):
    """Replace all linear layers and 1x1 convolutions; by name."""
    found = {}
    for name, module in list(model.named_modules()):
        one = isinstance(module, nn.Conv2d | nn.Conv1d) and set(module.kernel_size) == {1}
        if isinstance(module, nn.Linear | Projection) or (one and module.groups == 1):
            owner, _, attribute = name.rpartition('.')
            found[name] = kind(module)
            setattr(model.get_submodule(owner), attribute, found[name])
    return found


def check_hooks(model, run):
    """Every layer is called, and the result is what it is without hooks."""
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad():
            plain = run(model)
            called = set()
            layers = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
            handles = [
                m.register_forward_hook(lambda *_, n=n, called=called: called.add(n))
                for n, m in layers.items()
            ]
            hooked = run(model)
            for handle in handles:
                handle.remove()
        assert set(layers) == called, f'training {mode}: never called'
        for a, b in zip(plain, hooked, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def check_adapters(model, run):
    """Every adapter changes the result."""
    for mode, kind in ((True, Adapter), (False, Bare)):
        changed = copy.deepcopy(model).train(mode)
        adapters = adapted(changed, kind)
        outs = run(changed)
        generator = torch.Generator().manual_seed(1)
        loss = sum(
            (y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum() for y in outs
        )
        rates = [adapter.rate for adapter in adapters.values()]
        grads = torch.autograd.grad(loss, rates, allow_unused=True) if rates else ()
        silent = [
            name
            for name, grad in zip(adapters, grads, strict=True)
            if grad is None or grad.abs() == 0 or not grad.isfinite()
        ]
        assert not silent, f'training {mode}: without effect'


@pytest.mark.parametrize('name', BACKBONES.once_per_class())
def test_layers_of_backbones(name):
    model = awake(BACKBONES.build(BACKBONES.CASES[name]))
    x = torch.rand(2, 3, 48, 64, dtype=torch.float64)
    check_hooks(model, lambda net: net(x))
    check_adapters(model, lambda net: net(x))


@pytest.mark.parametrize('name', MODULES.MODULES)
def test_layers_of_modules(name):
    form, make = MODULES.MODULES[name]
    module = awake(MODULES.drawn(make))
    x, extra = MODULES.some(form)
    check_hooks(module, lambda net: [net(x, *extra)])
    check_adapters(module, lambda net: [net(x, *extra)])


@pytest.mark.parametrize('name', [*PLUGINS.PLUGINS, *PLUGINS.OPERATORS])
def test_layers_of_plugins(name):
    module = awake(PLUGINS.stand_alone(name))
    for size in ((2, 16, 6, 5), (1, 16, 6, 5)):
        x = torch.rand(size, dtype=torch.float64)
        check_hooks(module, lambda net, x=x: [net(x)])
        check_adapters(module, lambda net, x=x: [net(x)])


# -- what changes a layer by other ways, on networks that read weights -----------------------------

READING = (
    'cvt', 'levit', 'qna', 'quadratic-resnet', 'elsa-swin', 'san-pairwise', 'mvitv2', 'coatnet-rw',
)  # fmt: skip


@pytest.mark.parametrize('name', [BACKBONES.marked(n, BACKBONES.CASES[n]) for n in READING])
def test_parametrised_and_pruned_layers(name):
    """Both compute the weight that is used: as if it had been written into the layer."""

    class Halved(nn.Module):
        def forward(self, weight):
            return weight / 2

    x = torch.rand(1, 3, 48, 64, dtype=torch.float64)
    expected, parametrised, pruned = (
        awake(BACKBONES.build(BACKBONES.CASES[name])).eval() for _ in range(3)
    )
    for net in (expected, parametrised, pruned):
        for layer in list(net.modules()):
            if type(layer) not in (nn.Linear, nn.Conv2d):
                continue
            if net is expected:
                layer.weight.data /= 2
            elif net is parametrised:
                parametrize.register_parametrization(layer, 'weight', Halved())
            else:  # its hook computes the weight at every call, from what is there at that time
                prune.custom_from_mask(layer, 'weight', torch.ones_like(layer.weight))
                layer.weight_orig.data /= 2
    for net in (parametrised, pruned):
        for a, b in zip(net(x), expected(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('name', [BACKBONES.marked(n, BACKBONES.CASES[n]) for n in READING])
def test_quantised_layers(name):
    """torch puts its own classes in the place of linear layers, whose weight is a method."""
    net = awake(BACKBONES.build(BACKBONES.CASES[name])).float().eval()
    few = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        for a, b in zip(few(x), net(x), strict=True):
            assert (a - b).norm() < 0.2 * b.norm()


@pytest.mark.parametrize(
    'name', [BACKBONES.marked(n, BACKBONES.CASES[n]) for n in (*READING, 'ea-aa-resnet')]
)
def test_called_layers_in_half_precision(name):
    """Also where their input was made more accurate than they are."""
    x = torch.rand(1, 3, 48, 64).bfloat16()
    with torch.no_grad():
        net = BACKBONES.build(BACKBONES.CASES[name]).bfloat16().eval()
        plain = net(x)
        for module in net.modules():
            module.register_forward_hook(lambda *_: None)
        for a, b in zip(plain, net(x), strict=True):
            assert a.dtype == b.dtype
            assert (a.float() - b.float()).norm() < 0.05 * a.float().norm()


def test_what_is_plain():
    layer = nn.Linear(2, 2)
    assert is_plain(layer, None, nn.Conv2d(2, 2, 1), nn.SyncBatchNorm(2), nn.BatchNorm1d(2))
    for register in ('forward_hook', 'forward_pre_hook', 'full_backward_hook'):
        handle = getattr(layer, f'register_{register}')(lambda *_: None)
        assert not is_plain(layer), register
        handle.remove()
        assert is_plain(layer)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_plain(layer)
    with fused_despite_hooks():
        assert is_plain(layer)
    handle.remove()
    layer.forward = lambda x: x
    assert not is_plain(layer)
    assert not is_plain(type('Own', (nn.Linear,), dict(forward=lambda self, x: x))(2, 2))
    assert is_plain(type('Named', (nn.Linear,), {})(2, 2))


def test_what_is_merged_for_good_must_be_plain():
    levit = LeViT(BACKBONES.CASES['levit']['arch'])
    layer = next(module for module in levit.modules() if isinstance(module, LinearNorm))
    layer.linear = Adapter(layer.linear)
    with pytest.raises(
        ValueError, match=r'LinearNorm: the weights of linear cannot be merged.*Ada'
    ):
        levit.switch_to_deploy()
    net = RepLKNet(BACKBONES.CASES['replknet']['arch'])
    kernel = next(module for module in net.modules() if isinstance(module, DepthwiseConv2d))
    prune.l1_unstructured(kernel, 'weight', amount=0.5)
    with pytest.raises(ValueError, match='weights of conv cannot be merged'):
        net.switch_to_deploy()


@pytest.mark.part_of('network:CvT')
def test_hooks_compile():
    """Without a break of the graph; adding and removing them compiles again."""
    net, x = QuickGELUMLP(4, 8).eval(), torch.rand(3, 4)
    compiled = torch.compile(net, fullgraph=True, backend='eager')
    with torch.no_grad():
        before = compiled(x)
        handle = net.fc2.register_forward_hook(lambda module, inputs, y: y * 2)
        hooked = compiled(x)
        handle.remove()
        after = compiled(x)
    assert torch.equal(before, after)
    torch.testing.assert_close(hooked, 2 * before)
    torch._dynamo.reset()
