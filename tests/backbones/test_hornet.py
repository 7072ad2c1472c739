"""HorNet beyond the contract."""

import re

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from hybrid_mm.backbones import HorNet
from hybrid_mm.convert import convert, detect
from hybrid_mm.layers import GlobalLocalFilter, RecursiveGatedConv
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

ARCH = dict(depths=[1, 2, 3, 1], dims=[8, 12, 16, 32], orders=[2, 3, 4, 5])
KERNELS, FILTERS = [None] * 4, [None, None, (14, 8), (7, 4)]


def parameters(arch, classes=0, **kwargs):
    with torch.device('meta'):
        model = HorNet(arch, **kwargs)
        head = nn.Linear(model.stage_channels[-1], classes) if classes else nn.Identity()
    return sum(p.numel() for m in (model, head) for p in m.parameters())


@pytest.mark.parametrize(
    'arch, count',
    [
        ('tiny', 22_409_512), ('tiny-gf', 22_991_848), ('small', 49_528_264),
        ('small-gf', 50_401_768), ('base', 87_256_680), ('base-gf', 88_421_352),
        ('base-gf384', 92_099_560), ('large', 194_542_504), ('large-gf', 196_289_512),
        ('large-gf384', 201_806_824),
    ],
)  # fmt: skip
def test_parameters(arch, count):
    assert parameters(arch, 1000, out_indices=(3,), pooled=True) == count


@pytest.mark.parametrize(
    'arch, count',
    [('tiny', 21_897_408), ('tiny-gf', 22_479_744), ('small', 48_760_608), ('base', 86_233_472)],
)
def test_parameters_of_dense_networks(arch, count):
    assert parameters(arch) == count


def test_recursion_is_that_of_the_paper():
    torch.manual_seed(0)
    layer = RecursiveGatedConv(6, 16, 5, order=4, kernel_size=5, scale=0.3).double()
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    context = layer.proj_in(x)
    first, context = context[:, :2], context[:, 2:]
    plain = nn.functional.conv2d(context, layer.dwconv.weight, layer.dwconv.bias, 1, 2, 1, 30)
    parts = torch.split(plain * 0.3, [2, 4, 8, 16], dim=1)
    expected = first * parts[0]
    for gate, part in zip(layer.gates, parts[1:], strict=True):
        expected = gate(expected) * part
    torch.testing.assert_close(layer(x), layer.proj_out(expected))


@pytest.mark.parametrize('size', [(8, 6), (9, 7), (1, 1), (20, 33)])
def test_global_filter_is_a_circular_convolution(size):
    layer = GlobalLocalFilter(4, (6, 4)).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    impulse = torch.zeros(1, 2, *size, dtype=torch.float64)
    impulse[..., 0, 0] = 1
    response, found = (global_filter(y, layer.spectrum)[0] for y in (impulse, x))
    # every shift of the response, weighed by the pixel it comes from
    rows, columns = range(size[0]), range(size[1])
    if len(rows) * len(columns) > 100:
        pytest.skip('the sum over all shifts is for small maps')
    expected = sum(
        x[0, :, i, j, None, None] * response.roll((i, j), (1, 2)) for i in rows for j in columns
    )
    torch.testing.assert_close(found, expected)


def test_errors():
    with pytest.raises(ValueError, match='order 4 needs channels that 8 divides'):
        RecursiveGatedConv(12, 12, 12, order=4)
    with pytest.raises(ValueError, match='order must be positive, got 0'):
        RecursiveGatedConv(12, 12, 12, order=0)
    with pytest.raises(ValueError, match='15 is odd'):
        GlobalLocalFilter(15, (4, 4))
    with pytest.raises(
        ValueError, match='filter_sizes must have one entry for each of the 4 stages'
    ):
        HorNet('tiny', filter_sizes=[(4, 4)])


def official(key, pretrain):
    """The official name of a tensor, or that of MMPretrain, written out independently."""
    key = key.replace('stages.0.embed.conv', 'downsample_layers.0.0')
    key = key.replace('stages.0.embed.norm', 'downsample_layers.0.1')
    key = re.sub(r'stages\.(\d)\.downsample\.norm', r'downsample_layers.\1.0', key)
    key = re.sub(r'stages\.(\d)\.downsample\.conv', r'downsample_layers.\1.1', key)
    key = re.sub(r'stages\.(\d)\.norm', r'norm\1', key)
    key = key.replace('.blocks.', '.').replace('mlp.fc', 'pwconv').replace('mixer', 'gnconv')
    for ours, theirs in (
        ('conv', 'dw'),
        ('spectrum', 'complex_weight'),
        ('norm1', 'pre_norm'),
        ('norm2', 'post_norm'),
    ):
        key = key.replace(f'dwconv.{ours}', f'dwconv.{theirs}')
    key = key.replace('gates', 'projs' if pretrain else 'pws')
    return re.sub(r'gamma\d$', r'\g<0>.weight', key) if pretrain else key


@pytest.mark.parametrize('pretrain', [False, True])
def test_layouts(pretrain):
    own = HorNet(dict(ARCH, filter_sizes=FILTERS)).state_dict()
    state = {official(key, pretrain): value for key, value in own.items()}
    assert len(state) == len(own)
    assert detect(state) == 'hornet'
    out = convert(state)
    assert out.keys() == own.keys()
    assert all(out[key] is own[key] for key in own)
    with pytest.raises(ValueError, match=r"hornet: do not know the key 'stages.0.extra'"):
        convert(state | {'stages.0.extra': torch.ones(1)})


def test_classifier_with_filters_of_another_size(tmp_path):
    source = HorNet(dict(ARCH, filter_sizes=FILTERS), out_indices=(3,))
    state = {official(k, False).replace('norm3', 'norm'): v for k, v in source.state_dict().items()}
    state |= {'head.weight': torch.ones(5, 32), 'head.bias': torch.ones(5)}
    torch.save(dict(model=state), tmp_path / 'hornet.pth')
    dense = HorNet(dict(ARCH, filter_sizes=[None, None, (24, 13), (12, 7)]))
    dense.load_pretrained(str(tmp_path / 'hornet.pth'))
    old = source.state_dict()['stages.2.blocks.0.mixer.dwconv.spectrum']
    new = dense.state_dict()['stages.2.blocks.0.mixer.dwconv.spectrum']
    assert new.shape == (15, 24, 13, 2)
    for row in (0, -1):  # corners stay corners
        for column in (0, -1):
            torch.testing.assert_close(new[:, row, column], old[:, row, column])
    with pytest.raises(ValueError, match='does not fit this HorNet'):
        HorNet(dict(ARCH, filter_sizes=KERNELS)).load_pretrained(str(tmp_path / 'hornet.pth'))


def test_layers_of_the_decay():
    model = HorNet('tiny')
    blocks = [model.get_layer_depth(f'stages.2.blocks.{i}.gamma1')[0] for i in range(18)]
    assert blocks == [min(3 + i // 2, 11) for i in range(18)]
    names = 'stages.0.embed.conv.bias', 'stages.0.blocks.1.gamma1', 'stages.1.downsample.bias'
    assert [model.get_layer_depth(name)[0] for name in names] == [0, 1, 2]
    names = 'stages.2.downsample.conv.bias', 'stages.3.downsample.conv.bias', 'stages.1.norm.bias'
    assert [model.get_layer_depth(name)[0] for name in names] == [3, 12, 13]


def test_layers_counted_from_a_number():
    class Detector(BaseModel):
        def __init__(self):
            super().__init__()
            self.backbone = HorNet(dict(ARCH, depths=[1, 1, 12, 1], filter_sizes=KERNELS))
            self.head = nn.Linear(2, 2)

        def forward(self, *args):
            raise NotImplementedError

    model = Detector()
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='LayerDecayOptimWrapperConstructor',
            optim_wrapper_cfg=dict(optimizer=dict(type='AdamW', lr=1.0)),
            paramwise_cfg=dict(layer_decay_rate=0.5, num_layers=6),
        )
    )(model)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(g['params'][0])]: g['lr'] for g in wrapper.optimizer.param_groups}
    assert rates['head.weight'] == rates['backbone.stages.3.norm.weight'] == 1
    assert rates['backbone.stages.0.embed.conv.weight'] == 0.5**7
    assert rates['backbone.stages.3.blocks.0.gamma1'] == 0.5**-5


class TestNeckAndHead:
    @pytest.mark.parametrize('filter_size', [None, (6, 4)])
    @pytest.mark.parametrize('extra', [False, 'on_output'])
    def test_neck(self, filter_size, extra):
        neck = MODELS.build(
            dict(
                type='HorFPN',
                in_channels=[8, 12, 16],
                out_channels=8,
                num_outs=5,
                filter_size=filter_size,
                add_extra_convs=extra,
            )
        )
        maps = neck([torch.rand(2, c, 20 // s, 28 // s) for c, s in ((8, 1), (12, 2), (16, 4))])
        assert [tuple(m.shape[2:]) for m in maps] == [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
        assert all(m.is_contiguous() for m in maps)
        convs = [m for m in neck.modules() if isinstance(m, RecursiveGatedConv)]
        assert len(convs) == (5 if extra else 3)
        assert all(isinstance(m.dwconv, GlobalLocalFilter) == bool(filter_size) for m in convs)

    def test_head(self):
        head = MODELS.build(
            dict(
                type='HorUPerHead',
                in_channels=[8, 12],
                in_index=[0, 1],
                channels=8,
                num_classes=3,
                norm_cfg=dict(type='BN'),
            )
        )
        out = head([torch.rand(2, 8, 16, 20), torch.rand(2, 12, 8, 10)])
        assert out.shape == (2, 3, 16, 20)
        assert head.fpn_bottleneck.proj_in.in_channels == 16
        assert isinstance(head.fpn_bottleneck.norm, nn.BatchNorm2d)
