"""Neck and head with gated convolutions: settings that reach them, and values by their parts."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.layers import RecursiveGatedConv
from hybrid_mm.openmmlab.hor_fpn import GatedConvModule


def randomised(module):
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1.0) if tensor.dim() == 1 else tensor.normal_(std=0.3)
    return module.double().eval()


@pytest.mark.parametrize('settings', [
    dict(), dict(order=3, kernel_size=5), dict(ratio=2), dict(ratio=2, project=False),
    dict(norm_cfg=dict(type='BN', eps=0.1), act_cfg=dict(type='LeakyReLU', negative_slope=0.3)),
], ids=str)  # fmt: skip
def test_module_is_convolution_norm_and_activation(settings):
    module = randomised(GatedConvModule(12, 8, **settings))
    width = 8 * settings.get('ratio', 1)
    plain = RecursiveGatedConv(
        12,
        width,
        8 if settings.get('project', True) else None,
        settings.get('order', 2),
        settings.get('kernel_size', 7),
    ).double()
    state = {k: v for k, v in module.state_dict().items() if not k.startswith(('norm.', 'act.'))}
    plain.load_state_dict(state, strict=True)  # of the orders and sizes that are asked for
    x = torch.randn(2, 12, 9, 13, dtype=torch.float64)
    y = plain(x)
    if 'norm_cfg' in settings:
        norm = module.norm
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=0.1)
        y = F.leaky_relu(y, 0.3)
    torch.testing.assert_close(module(x), y)
    assert module(x).shape[1] == (8 if settings.get('project', True) else width)


def test_norm_and_activation_by_name():
    named = GatedConvModule(6, 6, norm_cfg='BN', act_cfg='GELU')
    assert (type(named.norm), type(named.act)) == (nn.BatchNorm2d, nn.GELU)
    cfg = dict(in_channels=[4, 4], out_channels=4, num_outs=2, norm_cfg='BN', act_cfg='ReLU')
    neck = MODELS.build(dict(type='hybrid_mm.HorFPN', **cfg))
    assert all(type(m.norm) is nn.BatchNorm2d for m in gated(neck))
    assert type(neck.lateral_convs[0].norm) is nn.BatchNorm2d


def gated(model):
    return [m for m in model.modules() if isinstance(m, GatedConvModule)]


@pytest.mark.parametrize('norm', ['BN', 'IN', None])
def test_gradients_of_one_image_do_not_depend_on_strides(norm):
    """torch's batch and instance norms misread some of them on a CPU."""
    module = randomised(GatedConvModule(6, 6, norm_cfg=norm and dict(type=norm)))
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(1, 35, 6, dtype=torch.float64).transpose(1, 2).reshape(1, 6, 5, 7)
    grads = [torch.autograd.grad(module(x), x, g)[0] for g in (dy, dy.contiguous())]
    assert dy.stride() == (6, 1, 42, 6)
    torch.testing.assert_close(*grads)


def test_batch_without_images_in_half_precision():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for kind in (dict(type='HorFPN', filter_size=(4, 3)), dict(type='SimpleFPN')):
            neck = MODELS.build(
                dict(type=f'hybrid_mm.{kind.pop("type")}', in_channels=[8, 8], out_channels=8,
                     num_outs=5, **kind)
            ).to(dtype)  # fmt: skip
            for images in (0, 2):
                maps = [
                    torch.rand(images, 8, 8, 12).to(dtype),
                    torch.rand(images, 8, 4, 6).to(dtype),
                ]
                outs = neck(maps)
                sum(out.float().sum() for out in outs).backward()
                assert all((len(out), out.dtype) == (images, dtype) for out in outs)
                assert all(p.grad.isfinite().all() for p in neck.parameters() if images)


def test_neck_by_its_parts():
    """Lateral maps, added from the top down, then gated; norm and activation reach all of them."""
    norm, act = dict(type='BN'), dict(type='ReLU')
    neck = MODELS.build(
        dict(
            type='hybrid_mm.HorFPN',
            in_channels=[4, 6, 8],
            out_channels=8,
            num_outs=4,
            norm_cfg=norm,
            act_cfg=act,
            add_extra_convs='on_input',
            kernel_size=5,
        )
    )
    randomised(neck)
    assert len(gated(neck)) == 4
    for module in gated(neck):
        assert isinstance(module.norm, nn.BatchNorm2d) and isinstance(module.act, nn.ReLU)
        assert len(module.gates) == 1 and module.dwconv.kernel_size == (5, 5)
    maps = [
        torch.randn(1, c, 24 // s, 40 // s, dtype=torch.float64)
        for c, s in ((4, 1), (6, 2), (8, 4))
    ]
    found = neck([x.clone() for x in maps])
    a, b, c = (conv(x) for conv, x in zip(neck.lateral_convs, maps, strict=True))
    b = b + F.interpolate(c, size=b.shape[2:])
    a = a + F.interpolate(b, size=a.shape[2:])
    expected = [conv(x) for conv, x in zip(neck.fpn_convs, (a, b, c), strict=False)]
    expected.append(neck.fpn_convs[3](maps[-1]))
    assert expected[-1].shape[2:] == (3, 5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_head_has_its_norm_and_activation():
    head = MODELS.build(
        dict(
            type='hybrid_mm.HorUPerHead',
            in_channels=[4, 6],
            in_index=[0, 1],
            channels=8,
            num_classes=3,
            pool_scales=(1, 2),
            norm_cfg=dict(type='GN', num_groups=2),
            kernel_size=3,
            act_cfg=dict(type='LeakyReLU', negative_slope=0.25),
        )
    )
    (module,) = gated(head)
    assert module is head.fpn_bottleneck
    assert isinstance(module.norm, nn.GroupNorm) and module.norm.num_groups == 2
    assert isinstance(module.act, nn.LeakyReLU) and module.act.negative_slope == 0.25
    assert len(module.gates) == 1 and module.dwconv.kernel_size == (3, 3)
    default = MODELS.build(
        dict(
            type='hybrid_mm.HorUPerHead',
            in_channels=[4, 6],
            in_index=[0, 1],
            channels=8,
            num_classes=3,
        )
    )
    (module,) = gated(default)
    assert isinstance(module.act, nn.ReLU) and isinstance(module.norm, nn.Identity)
    assert module.dwconv.kernel_size == (7, 7)


@pytest.mark.parametrize('eps', [1e-6, 0.1])
def test_layer_norm_of_maps_by_its_name(eps):
    from mmcv.cnn import build_norm_layer

    layer = build_norm_layer(dict(type='hybrid_mm.LN2d', eps=eps), 6)[1].double()
    layer.weight.data.uniform_(0.5, 2)
    layer.bias.data.uniform_(-1, 1)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), layer.weight, layer.bias, eps)
    torch.testing.assert_close(layer(x), expected.permute(0, 3, 1, 2))
