"""Counts against hand computation, and against figures of the papers."""

from functools import partial

import mmcv.ops  # noqa: F401  (registers DCN)
import pytest
import torch
from mmcv.cnn import build_conv_layer
from torch import nn

from hybrid_mm.analysis.complexity import complexity, count
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.local_attention import block_attention, global_attention, local_attention


class Net(nn.Module):
    """One convolution of each type, a linear layer, attention, and a tensor method."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.depthwise(self.conv(x))).flatten(2).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return self.linear(x)


def test_against_hand_computation():
    model = Net().train()
    rows = {row.name: row for row in count(model, (16, 12))}
    pixels = 8 * 6
    assert rows['conv'].macs == pixels * 8 * 3 * 9
    assert rows['depthwise'].macs == pixels * 8 * 25
    assert rows['linear'].macs == pixels * 8 * 4
    assert rows['norm'].macs == 0
    attention = 2 * pixels * pixels * 8
    parts = sum(rows[name].macs for name in ('conv', 'depthwise', 'linear'))
    assert rows[''].macs == parts + attention
    assert rows[''].params == 3 * 8 * 9 + 8 * 25 + 8 + 16 + 8 * 4 + 4


def test_the_model_is_left_as_it_was():
    model = Net().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    complexity(model, (16, 16))
    assert model.training and not model.norm.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 64, 4)


@pytest.mark.parametrize('layer, outputs', [('DCN', 18), ('DCNv2', 27)])
def test_deformable_convolutions_count_as_convolutions_with_their_offsets(layer, outputs):
    conv = build_conv_layer(dict(type=layer), 3, 8, kernel_size=3, stride=2, padding=1, bias=False)
    before = conv(torch.rand(1, 3, 8, 8))
    assert complexity(nn.Sequential(conv), (10, 10))[1] == 25 * (8 + outputs) * 3 * 9
    assert 'forward' not in vars(conv)
    assert conv(torch.rand(1, 3, 8, 8)).shape == before.shape


PATTERNS = {
    'window': lambda x, t, **how: local_attention(x, x, x, 3, rel_h=t(5), rel_w=t(5), **how),
    'shift': lambda x, t, **how: local_attention(x, x, x[..., :2], (3, 5), dilation=2, **how),
    'block': lambda x, t, **how: block_attention(x, x, x, 4, 1, rel_w=t(11), **how),
    'whole': lambda x, t, **how: global_attention(x, x, x, rel_h=t(13), rel_w=t(19), **how),
}


@pytest.mark.parametrize('pattern', PATTERNS)
def test_attention_engine_is_counted_as_its_definition(pattern):
    """However it cuts its tiles: as many products as in the plain formulation."""

    class Attention(nn.Module):
        def __init__(self, impl):
            super().__init__()
            self.impl = impl
            self.table = nn.Parameter(torch.zeros(1, 19, 8))

        def forward(self, x):
            heads = x.unflatten(1, (2, 8)).permute(0, 1, 3, 4, 2)
            return PATTERNS[pattern](heads, lambda n: self.table[:, :n], impl=self.impl)

    tiled, plain = (complexity(Attention(impl), (16, 7, 10))[1] for impl in ('tiled', 'reference'))
    assert tiled == plain > 0


def test_values_that_decide_are_computed():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x):
            return self.linear(x.mean((2, 3))) if x.sum().item() == 0 else x

    assert complexity(Choosing(), (4, 4)) == (20, 15)


@pytest.mark.parametrize('shape', [(4,), (1, 3, 4, 4), (0, 4)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r'\(H, W\)'):
        count(Net(), shape)


@pytest.mark.parametrize(
    ('config', 'shape', 'params', 'gmacs'),
    [  # Mask R-CNN with 1000 box RoIs and 100 mask RoIs; segmenters without auxiliary head
        ('van/mask-rcnn_van-b0_fpn_1x_coco', (800, 1280), 23885136, 186.7),
        ('van/retinanet_van-b0_fpn_1x_coco', (800, 1280), 13386068, 168.5),
        ('van/van-b0_fpn_8xb4-40k_ade20k-512x512', (512, 512), 7984374, 25.7),
        ('van/van-b0_upernet_8xb2-160k_ade20k-512x512', (512, 2048), 32133004, 857.3),
        ('van/van-b0_8xb128_in1k', (224, 224), 4105800, 0.864),
    ],
)
def test_models_of_the_papers(config, shape, params, gmacs):
    from pathlib import Path

    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    cfg = Config.fromfile(Path(__file__).resolve().parents[2] / 'configs' / f'{config}.py')
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        ours = complexity(MODELS.build(cfg.model), shape)
    assert ours[0] == params
    assert ours[1] / 1e9 == pytest.approx(gmacs, rel=6e-4)


class Called(nn.Module):
    """A function of the image as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.table = nn.Parameter(torch.zeros(99, 8))

    def forward(self, x):
        return self.function(x.unflatten(1, (2, 8)).permute(0, 1, 3, 4, 2), self.table)


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
def test_decomposed_attention(impl):
    """6 x 4 queries, 3 x 2 keys, two heads of 8 channels."""

    def attend(x, table):
        keys = x[:, :, ::2, ::2]
        return decomposed_attention(x, keys, keys, table[:11], table[:7], impl=impl)

    products = 24 * 6 * (8 + 8)
    positions = 24 * (3 + 2) * 8
    assert complexity(Called(attend), (16, 6, 4))[1] == 2 * (products + positions)


def test_evolving_attention():
    """A convolution from two to two heads of the logits between 24 pixels."""
    pixels, heads = 24, 2
    products = heads * pixels**2 * (8 + 8)
    convolution = heads * pixels**2 * 9 * heads

    def attend(x, table, grown=True):
        zeros = table.new_zeros
        more = (zeros(1, heads, pixels, pixels), zeros(heads, heads, 3, 3), zeros(heads))
        return evolving_attention(x, x, x, None, None, *more * grown)[0]

    assert complexity(Called(attend), (16, 6, 4))[1] == products + convolution
    assert complexity(Called(partial(attend, grown=False)), (16, 6, 4))[1] == products


class TwoStages(nn.Module):
    """What a two-stage detector of MMDetection has, with one linear layer in each head."""

    def __init__(self):
        super().__init__()

        class Extractor(nn.Module):
            def __init__(self, size):
                super().__init__()
                self.out_channels = 4
                self.roi_layers = nn.ModuleList([nn.Identity()])
                self.roi_layers[0].output_size = (size, size)

        self.with_roi_head, self.with_rpn = True, False
        self.roi_head = nn.Module()
        self.roi_head.with_mask, self.roi_head.with_shared_head = True, False
        self.roi_head.bbox_head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 49, 5))
        self.roi_head.mask_head = nn.Conv2d(4, 6, 1)
        self.roi_head.bbox_roi_extractor = Extractor(7)
        self.roi_head.mask_roi_extractor = Extractor(14)
        self.backbone = nn.Conv2d(3, 4, 1)

    def extract_feat(self, x):
        return self.backbone(x)


def test_two_stages_are_counted_with_1000_boxes_and_100_masks():
    rows = {row.name: row.macs for row in count(TwoStages(), (8, 10))}
    assert rows['backbone'] == 80 * 3 * 4
    assert rows['roi_head.bbox_head'] == 1000 * 4 * 49 * 5
    assert rows['roi_head.mask_head'] == 100 * 196 * 4 * 6
    assert rows[''] == 80 * 12 + 980_000 + 470_400
