"""The size that the test pipeline of a config says, and what is exported for it."""

import pytest
from mmengine.config import Config

from hybrid_mm.commands.export_onnx import size_of_input
from hybrid_mm.run.pipeline_size import pipeline_size


def config(*steps, **preprocessor):
    dataset = dict(type='RepeatDataset', dataset=dict(type='X', pipeline=list(steps)))
    model = dict(type='Y', data_preprocessor=dict(type='Z', **preprocessor))
    return Config(dict(model=model, test_dataloader=dict(dataset=dataset)))


def resize(*scale, **kwargs):
    return dict(type='Resize', scale=scale, **kwargs)


@pytest.mark.parametrize(
    ('steps', 'preprocessor', 'size'),
    [
        ([resize(480, 360, keep_ratio=True)], {}, (360, 480)),
        ([resize(360, 480, keep_ratio=True)], {}, (360, 480)),  # bounds of sides, in any order
        ([resize(360, 480)], {}, (480, 360)),
        ([resize(2048, 1024, keep_ratio=True)], {}, (1024, 2048)),
        ([resize(2048, 512, keep_ratio=True)], {}, (512, 512)),
        ([resize(1333, 800, keep_ratio=True)], dict(pad_size_divisor=32), (800, 1344)),
        ([resize(100, 70)], dict(test_cfg=dict(size_divisor=32)), (96, 128)),
        (
            [dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)],
            {},
            (224,) * 2,
        ),
        ([dict(type='LoadImageFromFile')], {}, (512, 512)),
    ],
)
def test_size_of_input(steps, preprocessor, size, capsys):
    assert size_of_input(config(*steps, **preprocessor), fixed=True) == size
    assert f'size {size[0]} x {size[1]}' in capsys.readouterr().err


def test_pipeline_without_a_size():
    assert pipeline_size(config(dict(type='Resize', scale_factor=2.0))) is None
    assert pipeline_size(Config(dict(model=dict(type='Y')))) is None
