"""One number of channels in pipelines, data preprocessors and backbones."""

import copy

import pytest
from mmengine.config import Config

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.channels import check_channels, loader_of

pytest.importorskip('mmdet')
LOAD = dict(type='hybrid_mm.LoadMultichannelImage', channels=6)
FITS = dict(
    default_scope='mmdet',
    model=dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='hybrid_mm.MultichannelDetDataPreprocessor', mean=[1.0] * 6, std=[1.0] * 6
        ),
        backbone=dict(type='hybrid_mm.VAN', arch='b0', in_channels=6),
    ),
    train_dataloader=dict(
        dataset=dict(
            type='RepeatDataset',
            dataset=dict(
                type='CocoDataset', pipeline=[LOAD, dict(type='Resize'), dict(type='RandomFlip')]
            ),
        )
    ),
)
STEP = 'train_dataloader.dataset.dataset.pipeline'


def config(**options):
    cfg = Config(copy.deepcopy(FITS))
    cfg.merge_from_dict(options)
    return cfg


def test_what_fits():
    check_channels(config(), 'train', 'val')
    check_channels(config(**{f'{STEP}.0.channels': [0, 1, 5, 4, 3, 2]}), 'train')
    data = {'model.data_preprocessor.mean': [1.0], 'model.data_preprocessor.std': [1.0]}
    check_channels(config(**data), 'train')
    grey = dict(type='LoadImageFromFile', color_type='unchanged')
    check_channels(config(**{f'{STEP}.0': grey}), 'train')
    added = {f'{STEP}.0': dict(type='LoadImageFromFile'), f'{STEP}.1.type': 'OfAUser'}
    check_channels(config(**added), 'train')
    cfg = config()
    cfg.model = dict(type='DetTTAModel', module=cfg.model)
    check_channels(cfg, 'train')
    pipeline = config().train_dataloader.dataset.dataset.pipeline
    assert loader_of(pipeline) == dict(channels=6) and loader_of(pipeline[1:]) is None


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (
            {'model.data_preprocessor.type': 'DetDataPreprocessor'},
            r"mean has 6 values, and DetDataPreprocessor takes one or three. .*'hybrid_mm."
            r"MultichannelDetDataPreprocessor', model.backbone.in_channels=6, .*channels=6",
        ),
        ({'model.backbone.in_channels': 3}, 'mean has 6 values, but .*in_channels is 3'),
        (
            {'model.backbone.in_channels': 3, 'model.data_preprocessor.mean': [1.0]},
            'loads images of 6 channels, but model.backbone.in_channels is 3; set it to 6',
        ),
        ({f'{STEP}.0.channels': [0, 1, 2]}, 'loads images of 3 channels, but .*in_channels is 6'),
        (
            {'model.backbone.type': 'ResNet', 'model.data_preprocessor.mean': [1.0] * 5},
            'mean has 5 values, but model.backbone.in_channels is 6',
        ),
        ({'model.data_preprocessor.bgr_to_rgb': True}, 'bgr_to_rgb=True would exchange red'),
        ({f'{STEP}.1.type': 'PhotoMetricDistortion'}, 'pipeline.1: PhotoMetricDistortion is for'),
        ({f'{STEP}.1.type': 'mmdet.Mosaic'}, 'Mosaic is for images of three channels, .* loads 6'),
        ({'model.data_preprocessor.std': [1.0] * 3}, 'has 6 values of mean and 3 of std'),
        (
            {f'{STEP}.0': dict(type='LoadImageFromFile')},
            r'loads images of 3 channels with LoadImageFromFile, but .*in_channels is 6; set it to',
        ),
        ({f'{STEP}.1.type': 'Pad'}, 'Pad cannot pad images of more than four channels'),
    ],
)
def test_what_does_not_fit(options, text):
    with pytest.raises(UserError, match=text):
        check_channels(config(**options), 'train')


def test_three_channels_of_our_loader():
    """The stock data preprocessor would take them for blue, green and red in an exported file."""
    three = {
        f'{STEP}.0.channels': 3,
        'model.backbone.in_channels': 3,
        'model.data_preprocessor.mean': [1.0] * 3,
        'model.data_preprocessor.std': [1.0] * 3,
    }
    check_channels(config(**three), 'train')
    three['model.data_preprocessor.type'] = 'DetDataPreprocessor'
    with pytest.raises(UserError, match='MultichannelDetDataPreprocessor'):
        check_channels(config(**three), 'train')


def test_transforms_of_eight_bits(capsys):
    check_channels(config(**{f'{STEP}.1.type': 'Brightness'}), 'train')
    assert 'Brightness is for values of 0 to 255' in capsys.readouterr().err
