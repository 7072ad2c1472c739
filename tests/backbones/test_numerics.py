"""Numbers of every backbone: gradients of any layout, low precision, and batches without images.

The cases are those of ``test_all.py``. One of every class runs always, all of them with ``--slow``.
"""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SPEC = importlib.util.spec_from_file_location('cases', Path(__file__).with_name('test_all.py'))
CONTRACT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CONTRACT)
build = CONTRACT.build
ENCODER = dict(
    type='hybrid_mm.QuadraticAttentionEncoder',
    channels=24,
    depth=1,
    heads=3,
    hidden_channels=32,
    positions=5,
)
LOW = (torch.bfloat16, torch.float16)


@pytest.fixture(params=CONTRACT.once_per_class())
def cfg(request):
    return copy.deepcopy(CONTRACT.CASES[request.param])


def plain_batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Batch norm step by step, whose gradient does not depend on strides."""
    shape = (1, -1, *(1,) * (x.ndim - 2))
    if training:
        others = [d for d in range(x.ndim) if d != 1]
        mean, var = x.mean(others), x.var(others, correction=0)
    y = (x - mean.view(shape)) * torch.rsqrt(var.view(shape) + eps)
    return y * weight.view(shape) + bias.view(shape)


def turned(x, *order):
    """The same numbers, with axes in another order in memory."""
    inverse = [order.index(axis) for axis in range(x.ndim)]
    return x.permute(order).contiguous().permute(inverse)


def layouts(x):
    """A gradient as what comes after a network may leave it."""
    n, c, h, w = x.shape
    return {
        'contiguous': x,
        'of a linear layer on tokens': turned(x.flatten(2), 0, 2, 1).reshape(n, c, h, w),
        'channels last': x.contiguous(memory_format=torch.channels_last),
        'columns first': turned(x, 0, 3, 2, 1),
        'columns, then rows': turned(x, 0, 1, 3, 2),
        'part of the channels': torch.cat([x, x], 1)[:, c:],
        'inside of a map': F.pad(x, (1, 2, 3, 1))[:, :, 3:-1, 1:-2],
    }


@pytest.mark.parametrize('batch', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_gradients_of_every_layout(cfg, batch, monkeypatch):
    """At batch 1, and for maps of one row, torch's CPU batch norm misreads some of them."""
    model = build(cfg).double().train(batch == 2)
    x = torch.rand(batch, 3, 32, 96, dtype=torch.float64, requires_grad=True)
    maps = model(x)
    dys = [torch.randn_like(m) for m in maps]
    with monkeypatch.context() as patch:
        patch.setattr(F, 'batch_norm', plain_batch_norm)
        same = model(x)
        (expected,) = torch.autograd.grad(same, x, dys, retain_graph=True)
        rows = [torch.rand_like(dy[..., :1]).expand(dy.shape) for dy in dys]
        (of_rows,) = torch.autograd.grad(same, x, [row.contiguous() for row in rows])
    kinds = [layouts(dy) for dy in dys]
    for kind in kinds[0]:
        (found,) = torch.autograd.grad(maps, x, [k[kind] for k in kinds], retain_graph=True)
        assert (found - expected).norm() <= 1e-8 * expected.norm(), kind
    (found,) = torch.autograd.grad(maps, x, rows)
    assert (found - of_rows).norm() <= 1e-8 * of_rows.norm(), 'sums of rows'


@pytest.mark.parametrize(
    'layout', ['of a linear layer on tokens', 'channels last', 'columns first']
)
def test_images_of_every_layout(layout, monkeypatch):
    """An image that OpenCV has read, as a batch of one, has the strides (3, 1, 3 W, 3)."""
    for name in ('san-patchwise', 'halonet', 'levit', 'van-lka', 'pelk'):
        model = build(CONTRACT.CASES[name]).double().eval()
        x = torch.rand(1, 3, 32, 96, dtype=torch.float64)
        maps = []
        for image in (x, layouts(x)[layout]):
            image.requires_grad_()
            sum(m.square().sum() for m in model(image)).backward()
            maps.append(image.grad)
        assert (maps[0] - maps[1]).norm() <= 1e-8 * maps[0].norm(), name


def in_low_precision(model, dtype):
    """Whether all numbers have the type."""
    tensors = (*model.parameters(), *model.buffers())
    return {t.dtype for t in tensors if t.is_floating_point()} == {dtype}


@pytest.mark.parametrize('dtype', [LOW[0], pytest.param(LOW[1], marks=pytest.mark.slow)], ids=str)
def test_half_precision_without_autocast(cfg, dtype):
    """``.half()`` and ``.bfloat16()``: as near to the same network in float32 as rounding is."""
    x = torch.rand(2, 3, 64, 64).to(dtype)
    model = build(cfg)
    integers = {n: t.dtype for n, t in model.named_buffers() if not t.is_floating_point()}
    model = model.to(dtype).train()
    assert in_low_precision(model, dtype)
    assert integers == {n: t.dtype for n, t in model.named_buffers() if not t.is_floating_point()}
    accurate = copy.deepcopy(model).float().eval()
    for training in (True, False):
        model.train(training).zero_grad()
        image = x.clone().requires_grad_()
        maps = model(image)
        sum(m.float().pow(2).mean() for m in maps).backward()
        assert all(m.dtype == dtype for m in maps)
        for tensor in (image, *model.parameters()):
            assert tensor.grad.dtype == dtype
            assert tensor.grad.isfinite().all()
        assert all(b.isfinite().all() for b in model.buffers())
        accurate.load_state_dict(model.state_dict())  # running statistics have moved
    with torch.no_grad():
        for low, full in zip(maps, accurate(x.float()), strict=True):
            error = (low.float() - full).norm() / full.norm()
            assert error <= 16 * torch.finfo(dtype).eps / 4, (dtype, error)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name in ('cvt', 'levit', 'lesa-resnet', 'qna', 'san-patchwise')
                 else pytest.mark.slow)
    for name in CONTRACT.CASES
])  # fmt: skip
def test_norms_in_float32_in_a_network_in_half_precision(name):
    dtype = torch.bfloat16
    model = build(CONTRACT.CASES[name]).to(dtype)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm | nn.LayerNorm)]
    for norm in norms:
        norm.float()
    for training in (True, False):
        maps = model.train(training)(torch.rand(2, 3, 64, 64).to(dtype))
        sum(m.float().pow(2).mean() for m in maps).backward()
        assert all(m.isfinite().all() for m in maps)
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_default_type_and_device_of_a_block(cfg):
    """Networks are made in torch's default type, and without memory on the meta device."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert in_low_precision(build(cfg), torch.bfloat16)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device('meta'):
        model = build(cfg).eval()
        maps = model(torch.rand(2, 3, 64, 96))
    assert all(t.is_meta for t in (*model.parameters(), *model.buffers(), *maps))
    other = build(cfg).eval()
    model.to_empty(device='cpu').load_state_dict(other.state_dict())
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(model(x), other(x), strict=True):
            torch.testing.assert_close(a, b)


def check_empty_batch(model, training):
    model.train(training)
    buffers = {n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()}
    x = torch.rand(0, 3, 64, 96, requires_grad=True)
    maps = model(x)
    sum(m.sum() for m in maps).backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    for name, before in buffers.items():
        assert torch.equal(model.get_buffer(name), before), name
    with torch.no_grad():
        one = model.eval()(torch.rand(1, 3, 64, 96))
    for a, b in zip(maps, one, strict=True):
        assert (a.shape, a.dtype) == ((0, *b.shape[1:]), b.dtype)


@pytest.mark.parametrize('training, impl', [(True, 'auto'), (False, 'auto'), (True, 'reference')])
def test_batch_without_images(cfg, training, impl, monkeypatch):
    """Empty maps of the right shapes; gradients of parameters are 0, statistics stay."""
    monkeypatch.setenv('HYBRID_MM_IMPL', impl)
    check_empty_batch(build(cfg), training)


@pytest.mark.parametrize(
    'name', ['acmix-resnet', 'ea-aa-resnet', 'lesa-resnet', 'qna', 'san-acmix']
)
def test_layers_that_are_called(name):
    """Layers with hooks are called where their weights are read otherwise."""
    for dtype in (torch.float32, *LOW):
        model = build(CONTRACT.CASES[name]).to(dtype)
        for layer in model.modules():
            if not list(layer.children()):
                layer.register_forward_hook(lambda *_: None)
        for images in (0, 2):
            maps = model(torch.rand(images, 3, 64, 96).to(dtype))
            sum(m.float().sum() for m in maps).backward()
            assert all((len(m), m.dtype) == (images, dtype) for m in maps)
            assert all(p.grad.isfinite().all() for p in model.parameters())


def test_encoder_keeps_the_same_contract():
    for training in (True, False):
        check_empty_batch(build(ENCODER), training)
    for dtype in LOW:
        model = build(ENCODER).to(dtype)
        (out,) = model(torch.rand(2, 3, 17, 24).to(dtype))
        out.float().sum().backward()
        assert out.dtype == dtype
        assert all(p.grad.isfinite().all() for p in model.parameters())
