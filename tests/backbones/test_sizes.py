"""Weights that were made for another size of the image, in every way to load them.

``FITTED`` has every argument that a table depends on; ``OTHER_SIZES`` those that say nothing about
the image, with what they are. A new argument of either kind has to be in one of them.
"""

import copy
import dataclasses
import inspect
import logging
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel, BaseTTAModel, ExponentialMovingAverage
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model, load_checkpoint
from torch import nn

import hybrid_mm.backbones  # noqa: F401
from hybrid_mm.checkpoints import CheckpointError, check_weights
from hybrid_mm.convert import convert
from hybrid_mm.engine.starting_weights import starting_weights
from hybrid_mm.layers import AAConv2d, HaloAttention
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.ops.positions import fit_position_embedding
from hybrid_mm.registry import MODELS

_RESNET = dict(
    arch=dict(
        stem=8,
        bottleneck=True,
        depths=[1, 1, 1, 2],
        widths=[4, 8, 8, 16],
        out_channels=[8, 12, 16, 20],
    )
)
_BOTTLENECKS = dict(
    depths=[1, 1, 1, 1],
    channels=[8, 12, 16, 20],
    heads=[2] * 4,
    stem=dict(kind='tiered', channels=16, pool=True),
    attention=[False, False, True, True],
)
_SWIN = dict(embed_dim=8, depths=[1, 1, 1, 1], heads=[2, 2, 4, 4])
_PVT = dict(
    depths=[1, 1, 1, 1],
    embed_dims=[8, 12, 16, 24],
    heads=[1, 2, 2, 3],
    mlp_ratios=[2, 2, 2, 2],
    reductions=[8, 4, 2, 1],
)
_NAT = dict(embed_dim=8, depths=[1, 1, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None)
_HYBRID = dict(depths=[1, 1, 1, 1], channels=[8, 12, 16, 24], stem=dict(channels=(4, 8), bias=True))
_MAXVIT = dict(
    _HYBRID,
    conv=dict(act='gelu_tanh', padding='same'),
    norm=dict(eps=1e-3, momentum=0.01),
    ln_eps=1e-5,
    approximate='tanh',
)
_COATNET = dict(
    _HYBRID,
    kinds=['C', 'C', 'T', 'T'],
    conv=dict(act='gelu', padding='symmetric'),
    attention=dict(),
    norm=dict(eps=1e-5, momentum=0.1),
    ln_eps=1e-6,
)
_QNA = dict(
    embed_dim=8,
    qna_depths=[1, 1, 1, 0],
    qna_heads=[2, 4, 4, 8],
    kernel_sizes=[3, 3, 3, 3],
    window_depths=[0, 0, 1, 1],
    window_heads=[1, 2, 2, 4],
)
_LEVIT = dict(
    embed_dims=[16, 20, 24],
    key_dims=[4, 4, 6],
    heads=[2, 3, 2],
    depths=[1, 1, 1],
    mlp_ratios=[2] * 3,
    value_ratios=[2, 2, 3],
    shrink_heads=[None, 4, 3],
    shrink_key_dims=[None, 4, 5],
    shrink_value_ratios=[None, 4, 2],
    shrink_mlp_ratios=[None, 2, 3],
)
_HOR = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 32], orders=[2, 3, 4, 5])
_VIT = dict(embed_dim=16, heads=2, depths=[1, 1])

# network -> argument -> settings, value of a file, our value
FITTED = {
    'ViT': {
        'pretrain_img_size': (dict(arch=_VIT, out_indices=(1,)), 64, (96, 128)),
        'img_size': (
            dict(arch=_VIT, out_indices=(1,), relative=True, class_token=False),
            [64, 96],
            (128, 64),
        ),
        'window_size': (
            dict(arch=_VIT, out_indices=(1,), relative=True, class_token=False, global_blocks=()),
            3,
            4,
        ),
        'patch_size': (
            dict(arch=_VIT, out_indices=(1,), pretrain_img_size=112, img_size=112),
            14,
            16,
        ),
    },
    'PVT': {'img_size': (dict(arch=_PVT), 64, (96, 128))},
    'MViTv2': {
        'img_size': (
            dict(arch=dict(embed_dim=8, heads=1, depths=[1, 1, 1, 1])),
            (64, 96),
            [128, 96],
        )
    },
    'LeViT': {'img_size': (dict(arch=_LEVIT), 96, (128, 192))},
    'BoTNet': {
        'canvas_size': (dict(arch=_BOTTLENECKS), (64, 128), (96, 96)),
        'canvas_size, absolute': (
            dict(arch=_BOTTLENECKS, position='absolute'),
            (64, 128),
            (96, 96),
        ),
    },
    'AAResNet': {
        'canvas_size': (dict(_RESNET, heads=2, min_key_dim=3), (64, 96), (96, 128)),
    },
    'EAAAResNet': {
        'canvas_size': (dict(_RESNET, heads=2, upsilon=0.25), (64, 96), (96, 128)),
        'max_tokens': (dict(_RESNET, heads=2, upsilon=0.25, canvas_size=128), 12, 64),
    },
    'LESAResNet': {'canvas_size': (dict(_RESNET, groups=2), (64, 96), (96, 128))},
    'MaxViT': {
        'window_size': (dict(arch=_MAXVIT, head_width=4), 3, (4, 5)),
        'grid_size': (dict(arch=_MAXVIT, head_width=4, window_size=4), (2, 3), 5),
        'arch.window_size': (dict(arch=_MAXVIT, head_width=4), (2, 3), (3, 3)),
        'arch.grid_size': (dict(arch=_MAXVIT, head_width=4), (2, 3), (4, 4)),
    },
    'CoAtNet': {'img_size': (dict(arch=_COATNET, head_width=4), (64, 96), (96, 128))},
    'HorNet': {
        'filter_sizes': (
            dict(arch=dict(_HOR, filter_sizes=[None] * 4)),
            [None, None, [14, 8], [7, 4]],
            (None, None, (8, 9), (4, 5)),
        ),
        'arch.filter_sizes': (
            dict(arch=_HOR),
            [None, None, (14, 8), (7, 4)],
            [None, None, (8, 9), (4, 5)],
        ),
    },
    'ACmixSwin': {'window_size': (dict(arch=_SWIN), 4, [4, 4, 3, 7])},
    'ELSASwin': {
        'window_size': (dict(arch=dict(_SWIN, group_width=4)), 4, 7),
    },
    'NAT': {'kernel_size': (dict(arch=_NAT), 3, 7)},
    'DiNAT': {'kernel_size': (dict(arch=_NAT), 7, 5)},
    'DiNATs': {'kernel_size': (dict(arch=_SWIN), 3, 5)},
    'QnAViT': {
        'arch.window_sizes': (dict(arch=_QNA), [7, 7, 4, 3], [7, 7, 6, 5]),
    },
    'QuadraticAttentionEncoder': {
        'positions': (dict(depth=1, mode='learned'), 4, 6),
    },
}
# arguments that say nothing about the size of an image: kernels and what is tied to one, groups
OTHER_SIZES = {
    'ACmixSwin': {'patch_size'},
    'BoTNet': {'arch.group_size', 'position'},
    'CvT': {'arch.patch_sizes', 'kernel_size', 'with_cls_token'},
    'DiNATs': {'patch_size', 'window_size'},
    'ELSASwin': {'kernel_size', 'patch_size'},
    'HaloNet': {'arch.block_size', 'arch.group_size', 'arch.halo_size'},
    'LESAResNet': {'positions'},
    'MViTv2': {'window_size'},  # its tables are those of the whole map
    'PVT': {'class_token'},
    'PeLK': {'center_size', 'kernel_sizes'},
    'QnAViT': {'arch.kernel_sizes'},
    'QuadraticAttentionEncoder': {'patch_size', 'position_channels'},
    'RepLKNet': {'arch.kernel_sizes'},
    'SAN': {'arch.kernel_sizes', 'arch.stem_kernel_size'},
    'SASAResNet': {'kernel_size'},
    'SLaK': {'kernel_sizes'},
    'VAN': {'kernel_size'},
    'ViT': {'class_token'},
}
CASES = [
    pytest.param(network, name, marks=pytest.mark.part_of(f'network:{network}'))
    for network, arguments in FITTED.items()
    for name in arguments
]
MISFIT = 'do not match exactly'  # what MMEngine says of weights that it does not load


def backbones():
    """All networks of the package by name."""
    return {
        name: network
        for name, network in MODELS.module_dict.items()
        if inspect.isclass(network) and network.__module__.startswith('hybrid_mm.backbones.')
    }


def size_arguments(network):
    """Arguments, and fields of variants, whose name speaks of a size, a position or a token."""
    constructors = [vars(c).get('__init__') for c in network.__mro__ if 'hybrid_mm' in c.__module__]
    names = {name for init in constructors if init for name in inspect.signature(init).parameters}
    if hasattr(network, 'arch_class'):
        names |= {f'arch.{field.name}' for field in dataclasses.fields(network.arch_class)}
    return {name for name in names if any(word in name for word in ('size', 'position', 'token'))}


def test_every_argument_of_a_size_is_listed():
    found = {name: size_arguments(network) for name, network in backbones().items()}
    fitted = {name: {key.split(',')[0] for key in cases} for name, cases in FITTED.items()}
    assert found == {
        name: fitted.get(name, set()) | OTHER_SIZES.get(name, set()) for name in backbones()
    }


def build(network, name, value, **kwargs):
    """Network of a case with a value of its argument, random weights."""
    settings = copy.deepcopy(FITTED[network][name][0])
    argument = name.split(',')[0]
    if argument.startswith('arch.'):
        settings['arch'][argument[5:]] = value
    else:
        settings[argument] = value
    return MODELS.build(dict(type=f'hybrid_mm.{network}', **settings, **kwargs))


def pair(network, name):
    """A trained network of the size of a file, all weights random, and our value."""
    _, theirs, ours = FITTED[network][name]
    source = build(network, name, theirs)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.uniform_(1, 2)
    return source, ours


def saved(path, state):
    torch.save(dict(state_dict=state, meta={}), path)
    return str(path)


@pytest.fixture
def lines(monkeypatch):
    """What networks log of the weights that they take."""
    found = []
    monkeypatch.setattr(
        'hybrid_mm.backbones.frames.strict_weights.print_log', lambda text, _: found.append(text)
    )
    return found


def assert_same(model, expected, prefix=''):
    found = model.state_dict()
    assert found.keys() == {prefix + key for key in expected}
    for key, value in expected.items():
        assert torch.equal(found[prefix + key], value), key


@pytest.mark.parametrize(('network', 'name'), CASES)
def test_every_way_to_load(network, name, tmp_path, capsys):
    """All of them give what ``init_cfg`` gives, without a word of what does not fit."""
    source, ours = pair(network, name)
    state = source.state_dict()
    path = saved(tmp_path / 'alone.pth', state)
    prefixed = {f'module.backbone.{key}': value for key, value in state.items()}
    detector_path = saved(tmp_path / 'detector.pth', prefixed)
    start = build(network, name, ours, init_cfg=dict(type='Pretrained', checkpoint=path))
    start.init_weights()
    expected = start.state_dict()
    resized = [key for key in expected if expected[key].shape != state[key].shape]
    assert resized
    for key in expected:
        assert expected[key].isfinite().all()
        if key not in resized:
            assert torch.equal(expected[key], state[key]), key
        elif 'spectrum' not in key and 'proj' not in key:  # between the numbers of the file, nearly
            assert expected[key].min() > 0 and expected[key].max() < 2.2, key

    model = build(network, name, ours)
    model.load_state_dict(state)
    assert_same(model, expected)
    for strict in (False, True):
        model = build(network, name, ours)
        load_checkpoint(model, path, strict=strict)
        assert_same(model, expected)
    for wrapped in (False, True):
        detector = nn.ModuleDict(dict(backbone=build(network, name, ours)))
        outer = nn.DataParallel(detector) if wrapped else detector
        load_checkpoint(outer, detector_path, strict=wrapped)
        assert_same(detector, expected, 'backbone.')
    detector = nn.ModuleDict(dict(backbone=build(network, name, ours)))
    weights, text, left = starting_weights(detector, state, 'x.pth')
    assert not left and f'{len(resized)} of another size were resized' in text
    detector.load_state_dict(weights)
    assert_same(detector, expected, 'backbone.')
    weights = check_weights(detector, torch.load(detector_path), 'x.pth')
    assert weights.keys() == detector.state_dict().keys()
    assert all(torch.equal(weights[f'backbone.{key}'], expected[key]) for key in expected)
    with pytest.raises(CheckpointError, match=r'of another shape: backbone\.'):
        check_weights(detector, torch.load(detector_path), 'x.pth', same_size=True)
    assert MISFIT not in ''.join(capsys.readouterr())
    # what fits is not touched
    again = build(network, name, ours)
    fitted, changes = fitted_weights(again, expected)
    assert not changes and all(fitted[key] is expected[key] for key in expected)


TWO = [
    pytest.param('ViT', 'pretrain_img_size', marks=pytest.mark.part_of('network:ViT')),
    pytest.param('BoTNet', 'canvas_size', marks=pytest.mark.part_of('network:BoTNet')),
]


def models(network, name, value):
    """Small models of the three libraries around a network, as configs."""
    backbone = backbone_config(network, name, value)
    channels = build(network, name, value).out_channels[-1]
    detector = dict(
        type='RetinaNet',
        backbone=backbone,
        neck=dict(type='FPN', in_channels=[channels], out_channels=8, num_outs=1),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=8,
            stacked_convs=1,
            feat_channels=8,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[32]),
        ),
        data_preprocessor=dict(type='DetDataPreprocessor'),
        test_cfg=dict(),
    )
    head = dict(type='FCNHead', in_channels=channels, in_index=0, channels=8, num_classes=2)
    segmenter = dict(
        type='EncoderDecoder', backbone=backbone, decode_head=head, test_cfg=dict(mode='whole')
    )
    classifier = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=channels),
    )
    return dict(mmdet=detector, mmseg=segmenter, mmpretrain=classifier)


def backbone_config(network, name, value):
    settings = copy.deepcopy(FITTED[network][name][0])
    last = len(settings['arch']['depths']) - 1
    return {'type': f'hybrid_mm.{network}', **settings, name: value, 'out_indices': (last,)}


def loaders():
    """Ways of the libraries to build a model and load a file, by the library."""
    with warnings.catch_warnings():  # of their own, at the import
        warnings.simplefilter('ignore')
        from mmdet.apis import init_detector
        from mmpretrain import get_model
        from mmseg.apis import init_model
    return dict(
        mmdet=lambda cfg, path: init_detector(cfg, path, palette='coco', device='cpu'),
        mmseg=lambda cfg, path: init_model(cfg, path, device='cpu'),
        mmpretrain=lambda cfg, path: get_model(cfg, pretrained=path, device='cpu'),
    )


@pytest.mark.parametrize(('network', 'name'), TWO)
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.filterwarnings('ignore')
def test_libraries(library, network, name, tmp_path, capsys, lines):
    source, ours = pair(network, name)
    settings = models(network, name, ours)[library]
    cfg = Config(dict(model=settings, default_scope=library))
    with DefaultScope.overwrite_default_scope(library):
        plain = ROOT.build(settings)
    state = plain.state_dict()
    prefix = 'backbone.'
    state |= {prefix + k: v for k, v in source.state_dict().items() if prefix + k in state}
    path = saved(tmp_path / 'model.pth', state)
    own = build(network, name, ours)
    own.load_strictly(source.state_dict(), 'the file')
    del lines[:]
    model = loaders()[library](cfg, path)
    assert MISFIT not in ''.join(capsys.readouterr())
    assert len(lines) == 1 and 'of another size were resized' in lines[0]
    found = model.backbone.state_dict()
    for key in found:
        assert torch.equal(found[key], own.state_dict()[key]), key


class Model(BaseModel):
    """Model of MMEngine around a network."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


class Averages(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.mark.parametrize(('network', 'name'), TWO)
def test_wrappers_and_runners(network, name, tmp_path, capsys):
    """Test-time augmentation, averages of weights, a runner without our hooks, a copy."""
    source, ours = pair(network, name)
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    path = saved(tmp_path / 'model.pth', state)
    expected = build(network, name, ours)
    expected.load_strictly(source.state_dict(), 'the file')
    expected = expected.state_dict()

    def model():
        return Model(build(network, name, ours))

    tta = Averages(model())
    load_checkpoint(tta, path, strict=True)
    assert_same(tta.module.backbone, expected)
    average = ExponentialMovingAverage(model())
    averaged = {f'module.{key}': value for key, value in state.items()}
    average.load_state_dict({**averaged, 'steps': torch.tensor(3)})
    assert_same(average.module.backbone, expected)
    copied = copy.deepcopy(model())
    copied.load_state_dict(state)
    assert_same(copied.backbone, expected)
    runner = Runner(
        model(), str(tmp_path), default_scope='hybrid_mm', load_from=path, log_level='WARNING'
    )
    runner.load_or_resume()
    assert_same(runner.model.backbone, expected)
    assert MISFIT not in ''.join(capsys.readouterr())


@pytest.mark.part_of('network:ViT', 'network:BoTNet')
def test_one_line_says_what_was_resized(lines):
    source, ours = pair('BoTNet', 'canvas_size')
    model = nn.ModuleDict(dict(backbone=build('BoTNet', 'canvas_size', ours)))
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    model.load_state_dict(state)
    (line,) = lines
    assert 'weights of BoTNet: 4 of another size were resized: ' in line
    assert 'stages.3.blocks.0.conv2.relative.rel_h from (1, 7, 4) to (1, 11, 4)' in line
    model.load_state_dict(model.state_dict())
    assert lines == [line]


@pytest.mark.part_of('network:BoTNet', 'network:CoAtNet', 'network:MViTv2', 'network:LeViT')
@pytest.mark.parametrize(
    ('network', 'name', 'table', 'change'),
    [
        ('BoTNet', 'canvas_size', 'relative.rel_h', lambda t: t[..., 1:]),
        ('BoTNet', 'canvas_size', 'relative.rel_h', lambda t: t.expand(2, -1, -1)),
        ('BoTNet', 'canvas_size', 'relative.rel_h', lambda t: t[0]),
        ('CoAtNet', 'img_size', 'relative_bias.table', lambda t: t[1:]),
        ('CoAtNet', 'img_size', 'relative_bias.table', lambda t: t[1:].flatten(1)),
        ('MViTv2', 'img_size', 'relative.rel_w', lambda t: t[:, 1:]),
        ('LeViT', 'img_size', 'distance_bias', lambda t: t[1:]),
        ('ViT', 'pretrain_img_size', 'stem.position', lambda t: t[..., 1:]),
        ('ViT', 'patch_size', 'proj.weight', lambda t: t[1:]),
        ('PVT', 'img_size', 'embed.position', lambda t: t[..., 1:]),
        ('HorNet', 'filter_sizes', 'spectrum', lambda t: t[1:]),
        ('NAT', 'kernel_size', 'relative_bias', lambda t: t[:0]),
    ],
)
def test_tables_of_another_network_are_not_resized(network, name, table, change, capsys):
    """Other heads, channels, dimensions: what torch, MMEngine and we always said of them."""
    source, ours = pair(network, name)
    model = build(network, name, ours)
    state = source.state_dict()
    key = next(key for key in state if key.endswith(table))
    before = model.state_dict()[key].clone()
    state[key] = change(state[key])
    named = re.escape(f'1 of another shape: {key} (file {tuple(state[key].shape)},')
    with pytest.raises(ValueError, match=rf'the file does not fit this .* {named}'):
        model.load_strictly(state, 'the file')
    with pytest.raises(RuntimeError, match=f'size mismatch for {key}'):
        model.load_state_dict(state, strict=False)
    capsys.readouterr()
    _load_checkpoint_to_model(model, dict(state_dict=state))
    assert f'size mismatch for {key}' in ''.join(capsys.readouterr())
    assert torch.equal(model.state_dict()[key], before)


@pytest.mark.part_of('network:ViT', 'network:PVT', 'network:CoAtNet', 'network:BoTNet')
@pytest.mark.parametrize(
    ('network', 'name', 'table', 'change', 'reason'),
    [
        # two tokens in front, as of a distilled DeiT; a map of 3 x 5
        ('ViT', 'pretrain_img_size', 'stem.position', lambda t: F.pad(t, (0, 0, 1, 0)),
         r'18 absolute positions .* our 6 x 8 patches and 1 token; give the pretrain_img_size'),
        ('ViT', 'pretrain_img_size', 'stem.position', lambda t: t[:, :16],
         r'16 absolute positions .* give the pretrain_img_size'),
        ('PVT', 'img_size', 'stages.0.embed.position', lambda t: t[:, :15],
         r'15 absolute positions .* our 24 x 32 patches; give the img_size'),
        ('PVT', 'img_size', 'stages.3.embed.position', lambda t: t[:, :4],
         r'4 absolute positions .* our 3 x 4 patches and 1 token; give the img_size'),
        ('CoAtNet', 'img_size', 'stages.2.blocks.0.attn.relative_bias.table',
         lambda t: t.flatten(1)[:, :45], r'a table of 45 offsets .* give the img_size'),
        ('CoAtNet', 'img_size', 'stages.2.blocks.0.attn.relative_bias.table',
         lambda t: t.flatten(1)[:, :36], r'a table of 36 offsets .* give the img_size'),
        ('BoTNet', 'canvas_size', 'stages.2.blocks.0.conv2.relative.rel_w',
         lambda t: t[:, 1:], r'a relative table has 2 \* size - 1 entries, an odd number'),
    ],
)  # fmt: skip
def test_tables_that_do_not_say_their_size(network, name, table, change, reason):
    """An error in every way to load: a guess, or random numbers, would go unnoticed."""
    source, ours = pair(network, name)
    model, state = build(network, name, ours), source.state_dict()
    state[table] = change(state[table])
    detector = nn.ModuleDict(dict(backbone=model))
    prefixed = {f'backbone.{key}': value for key, value in state.items()}
    for load, origin in (
        (lambda: model.load_strictly(state, 'the file'), 'the file: '),
        (lambda: model.load_state_dict(state, strict=False), ''),
        (lambda: _load_checkpoint_to_model(detector, dict(state_dict=prefixed)), 'backbone.'),
        (lambda: check_weights(detector, prefixed, 'x.pth'), 'backbone.'),
        (lambda: starting_weights(detector, state, 'x.pth'), 'x.pth cannot be used: backbone.'),
    ):
        with pytest.raises(ValueError, match=f'{origin}{table}: {reason}'):
            load()


@pytest.mark.part_of('network:ViT')
def test_maps_that_are_not_square_are_known_by_their_argument():
    """Positions of our own number of patches are taken as they are."""
    settings = dict(arch=_VIT, out_indices=(1,), class_token=False)
    source = MODELS.build(dict(type='ViT', pretrain_img_size=(48, 80), **settings))
    state = source.state_dict()
    assert state['stem.position'].shape[1] == 16  # of 4 x 4 patches without a class token as well
    model = MODELS.build(dict(type='ViT', pretrain_img_size=[48, 80], **settings))
    model.load_state_dict(state)
    assert torch.equal(model.stem.position, source.stem.position)
    other = MODELS.build(dict(type='ViT', pretrain_img_size=96, **settings))
    with pytest.raises(ValueError, match='16 absolute positions are neither'):
        other.load_state_dict(state)
    # those of an official file, which may be of a square map without the entry of a class token
    official = {'pos_embed': state['stem.position'], 'norm.weight': torch.ones(16)}
    official |= {'norm.bias': torch.ones(16), 'patch_embed.proj.weight': state['stem.proj.weight']}
    official['patch_embed.proj.bias'] = state['stem.proj.bias']
    for key in [key for key in state if '.blocks.0.' in key]:
        official[key.removeprefix('stages.').replace('.blocks.0.', '.', 1)] = state[key]
    official = {
        key
        if key in ('pos_embed',) or key.startswith(('norm', 'patch'))
        else f'blocks.{key}': value
        for key, value in official.items()
    }
    other.load_strictly(convert(official), 'the file')
    assert not other.stem.position[:, 0].any() and other.stem.position.shape[1] == 37
    model.load_strictly(convert(official), 'the file')
    assert torch.equal(model.stem.position, source.stem.position)


def of_timm(state):
    """Weights of a ViT with a block in each subset under timm's names."""
    names = {'stem.position': 'pos_embed', 'stem.class_token': 'cls_token'}
    out = {names.get(key, key.replace('stem.', 'patch_embed.')): state[key] for key in state}
    out = {re.sub(r'stages.(\d+).blocks.0.', r'blocks.\1.', key): out[key] for key in out}
    width = state['stem.position'].shape[2]
    return out | {f'norm.{key}': torch.ones(width) for key in ('weight', 'bias')}


@pytest.mark.part_of('network:ViT')
def test_another_variant_is_not_called_another_network(tmp_path):
    settings = dict(type='ViT', arch=_VIT, out_indices=(1,))
    weights = of_timm(MODELS.build(settings).state_dict())
    path = saved(tmp_path / 'timm.pth', weights)
    wide = dict(settings, arch=dict(_VIT, embed_dim=32))
    model = MODELS.build(dict(wide, init_cfg=dict(type='Pretrained', checkpoint=path)))
    shape = r'(file \(16,|file \(1, 197, 16\), model \(1, 197, 32\))'
    with pytest.raises(
        ValueError, match=rf'does not fit this ViT. Tensors .* another shape.*{shape}'
    ):
        model.init_weights()
    with pytest.raises(CheckpointError, match=r'\(layout vit\):\n  2\d of another shape: stem'):
        check_weights(model, weights, 'x.pth')


@pytest.mark.part_of('network:ViT')
def test_the_size_that_a_file_does_not_say_is_what_a_training_stops_with(tmp_path):
    """Not that a file of this network were one of another network."""
    settings = dict(type='ViT', arch=_VIT, out_indices=(1,))
    state = MODELS.build(dict(settings, pretrain_img_size=(48, 96))).state_dict()
    path = saved(tmp_path / 'x.pth', state)
    model = MODELS.build(dict(settings, init_cfg=dict(type='Pretrained', checkpoint=path)))
    with pytest.raises(ValueError, match=r'x.pth: stem.position: 19 .* give the pretrain_img_size'):
        model.init_weights()


@pytest.mark.part_of('network:PVT', 'network:LeViT', 'network:ViT')
@pytest.mark.parametrize('network', ['PVT', 'LeViT', 'ViT'])
def test_images_of_the_size_of_the_tables(network, monkeypatch):
    """At a size that is not square nothing is interpolated, and rows are rows."""
    name = 'img_size' if network != 'ViT' else 'pretrain_img_size'
    wide = build(network, name, [64, 128]).eval()
    monkeypatch.setattr(torch.nn.functional, 'interpolate', None)
    wide(torch.rand(1, 3, 64, 128))
    if network == 'PVT':
        embed = wide.stages[3].embed
        x = torch.rand(1, 16, 4, 8)
        plain = embed.norm(embed.proj(x).permute(0, 2, 3, 1))
        position = embed.position[:, 1:].view(1, 2, 4, -1)
        torch.testing.assert_close(embed(x), plain + position)
    elif network == 'LeViT':
        assert wide.stages[2].blocks[0].attn.distance_bias.shape == (2, 4, 8)
        assert wide.stages[3].downsample.attn.distance_bias.shape == (4, 4, 8)


@pytest.mark.part_of('network:ViT', 'network:PVT')
def test_positions_are_those_of_the_libraries():
    """MMPretrain's functions for its ViT and MViTv2, MMDetection's for its PVT."""
    resize = pytest.importorskip('mmpretrain.models.utils').resize_pos_embed
    table = torch.randn(1, 17, 6)
    for mode, argument in (('bicubic', 'pretrain_img_size'), ('bilinear', 'img_size')):
        ours = fit_position_embedding(table, (6, 3), 1, mode, argument)
        assert torch.equal(ours, resize(table, (4, 4), (6, 3), mode, 1))
    theirs = pytest.importorskip('mmdet.models.backbones.pvt').AbsolutePositionEmbedding
    expected = theirs((4, 4), 6).resize_pos_embed(table[:, 1:], (6, 3), 'bilinear')
    ours = fit_position_embedding(table[:, 1:], (6, 3), 0, 'bilinear', 'img_size')
    assert torch.equal(ours, expected)
    theirs = pytest.importorskip('mmpretrain.models.backbones.mvit').resize_decomposed_rel_pos
    settings = dict(FITTED['MViTv2']['img_size'][0], img_size=160)
    relative = MODELS.build(dict(type='MViTv2', **settings)).stages[0].blocks[0].attn.relative
    assert len(relative.rel_h) == 2 * 40 - 1
    offsets = torch.arange(40)[:, None] - torch.arange(40) + 39
    given = torch.randn(27, 8)
    fitted, _ = fitted_weights(relative, {'rel_h': given})
    torch.testing.assert_close(fitted['rel_h'][offsets], theirs(given, 40, 40))
    half = table.bfloat16()
    network = MODELS.build(
        dict(type='ViT', arch=dict(_VIT, embed_dim=6), out_indices=(1,), pretrain_img_size=(96, 48))
    )
    fitted, _ = fitted_weights(network, {'stem.position': half})
    expected = resize(half.float(), (4, 4), (6, 3)).bfloat16()
    assert torch.equal(fitted['stem.position'], expected)


@pytest.mark.part_of('network:ViT', 'network:MViTv2', 'network:PVT', 'network:MaxViT')
@pytest.mark.parametrize(
    ('settings', 'left_out'),
    [
        (
            dict(type='ViT', arch=_VIT, final_norm=True, out_indices=(0, 1)),
            dict(class_token=False, final_norm=False),
        ),
        (dict(type='PVT', arch=_PVT, class_token=True, out_indices=(3,)), dict(class_token=False)),
        (
            dict(type='MaxViT', arch=_MAXVIT, head_width=4, norm_outputs=True, out_indices=(3,)),
            dict(norm_outputs=False),
        ),
        (
            dict(type='QnAViT', arch=dict(_QNA, window_sizes=[3] * 4), norm_outputs='last'),
            dict(norm_outputs='none'),
        ),
    ],
)
def test_what_a_network_for_maps_does_without(settings, left_out, capsys):
    """Class tokens and norms of a classifier: left out in every way to load."""
    source = MODELS.build(settings)
    dense = {**settings, **left_out}
    state = source.state_dict()
    own = MODELS.build(dense)
    assert state.keys() - own.state_dict().keys()
    own.load_state_dict(state)
    detector = nn.ModuleDict(dict(backbone=MODELS.build(dense)))
    capsys.readouterr()
    prefixed = {f'backbone.{key}': value for key, value in state.items()}
    _load_checkpoint_to_model(detector, dict(state_dict=prefixed), strict=True)
    assert not ''.join(capsys.readouterr())
    strict = MODELS.build(dense)
    strict.load_strictly(state, 'the file')
    for key, value in strict.state_dict().items():
        assert torch.equal(value, state[key])
        assert torch.equal(detector.state_dict()[f'backbone.{key}'], value)


@pytest.mark.part_of('network:MViTv2', 'network:ACmixSwin')
def test_what_a_file_lacks_is_missed():
    """By ``strict=True`` and in tests; the start of a training takes a classifier's weights."""
    settings = FITTED['MViTv2']['img_size'][0]
    classifier = MODELS.build(dict(type='MViTv2', **settings, out_indices=(3,))).state_dict()
    dense = MODELS.build(dict(type='MViTv2', **settings))
    with pytest.raises(RuntimeError, match=r'Missing key.*stages.0.norm.weight'):
        dense.load_state_dict(classifier)
    with pytest.raises(CheckpointError, match=r'6 missing: stages.0.norm.weight'):
        check_weights(dense, classifier, 'x.pth')
    dense.load_strictly(classifier, 'the file')
    some = {k: v for k, v in dense.state_dict().items() if not k.startswith('stages.1.norm.')}
    with pytest.raises(ValueError, match=r'2 missing: stages.1.norm.weight'):
        dense.load_strictly(some, 'the file')

    mixed = MODELS.build(dict(type='ACmixSwin', arch=_SWIN, window_size=4))
    own = mixed.state_dict()
    plain = {k: v for k, v in own.items() if '.mix.' not in k and '.rate' not in k}
    with pytest.raises(RuntimeError, match=r'Missing key.*mix'):
        mixed.load_state_dict(plain)
    other = MODELS.build(dict(type='ACmixSwin', arch=_SWIN, window_size=4))
    other.load_state_dict(plain, strict=False)
    attn = other.stages[0].blocks[0].attn
    assert (attn.rate1.item(), attn.rate2.item()) == (1, 0)


def test_layers_alone(caplog):
    """In a network of somebody else."""
    kwargs = dict(key_channels=4, value_channels=2, heads=2)
    small, large = (nn.Sequential(AAConv2d(3, 8, size=size, **kwargs)) for size in ((3, 5), (6, 4)))
    with caplog.at_level(logging.INFO, 'hybrid_mm'):
        large.load_state_dict(small.state_dict())
    old, new = small[0].relative, large[0].relative
    for ours, theirs in zip(new(3, 4), old(3, 4), strict=True):
        assert ours.shape == theirs.shape
    assert torch.equal(new.rel_w, old.rel_w[:, 1:-1])
    text = 'weights of RelativePosition2d: 2 of another size were resized: '
    assert [record.message[: len(text)] for record in caplog.records] == [text]


@pytest.mark.parametrize(
    ('small', 'large', 'reason'),
    [
        (
            HaloAttention(8, heads=2, block_size=4, halo_size=1),
            HaloAttention(8, heads=2, block_size=4, halo_size=2),
            r'relative.rel_h: 11 entries are of another block or halo than our 15; give the block_',
        ),
        (
            LESA2d(8, (3, 5), groups=2, positions='flat'),
            LESA2d(8, (5, 4), groups=2, positions='flat'),
            r'rel: 29 entries do not fit .* maps of 5 x 4 with 39; give the canvas_size',
        ),
    ],
)
def test_tables_that_cannot_be_resized(small, large, reason):
    """An error in every way to load, as they would be random else."""
    with pytest.raises(ValueError, match=reason):
        large.load_state_dict(small.state_dict(), strict=False)
    large.load_state_dict(large.state_dict())
    wide = {k: v[..., :1] if 'rel' in k else v for k, v in small.state_dict().items()}
    with pytest.raises((RuntimeError, ValueError), match=r'size mismatch|entries do not fit'):
        large.load_state_dict(wide)


@pytest.mark.part_of('network:LESAResNet')
def test_some_offsets_are_not_all():
    settings = dict(_RESNET, type='LESAResNet', groups=2, deformable=(False, False, True, True))
    model = MODELS.build(settings)
    state = {
        k: v for k, v in model.state_dict().items() if 'stages.3.blocks.1.conv2.local' not in k
    }
    with pytest.raises(ValueError, match=r'missing: .*stages.3.blocks.1.conv2.local.conv_offset'):
        model.load_strictly(state, 'the file')


@pytest.mark.part_of('network:BoTNet')
def test_tables_that_are_reset():
    source, ours = pair('BoTNet', 'canvas_size')
    model = build('BoTNet', 'canvas_size', ours, table_policy='reset')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(source.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if '.rel_' in key else source.state_dict()[key]), key
