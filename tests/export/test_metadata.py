"""Metadata of ONNX files."""

import json

import pytest
from mmengine.config import Config

from hybrid_mm.export.metadata import _plain, resize_rule
from hybrid_mm.export.metadata import test_pipeline as pipeline_of  # no test

LOAD = dict(type='LoadImageFromFile')


@pytest.mark.parametrize(('steps', 'kind', 'rule'), [
    ([], 'none', 'the image is taken in its size'),
    ([dict(type='Resize', scale=[480, 360])], 'exact', 'resized to 480 x 360 (width x height)'),
    ([dict(type='Resize', scale=224)], 'exact', 'resized to 224 x 224 (width x height)'),
    ([dict(type='mmdet.Resize', scale=[800, 1333], keep_ratio=True)], 'within',
     'resized in its aspect ratio to fit: longer side 1333, shorter 800'),
    ([dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
      dict(type='CenterCrop', crop_size=224)], 'edge',
     'resized in its aspect ratio: short side 256; then 224 x 224 (height x width) at the centre'),
    ([dict(type='Resize', scale_factor=0.5)], 'other', 'see test_pipeline'),
    ([dict(type='Resize', scale=[9, 9]), dict(type='Resize', scale=[5, 5])], 'other',
     'see test_pipeline'),
    ([dict(type='TestTimeAug', transforms=[])], 'other', 'see test_pipeline'),
])  # fmt: skip
def test_resize_rule(steps, kind, rule):
    found = resize_rule([LOAD, *steps])
    assert found['kind'] == kind and found['rule'] == rule
    if kind == 'edge':
        assert found['crop'] == [224, 224] and found['backend'] == 'pillow'
        assert found['interpolation'] == 'bicubic' and found['scale'] == 256
    else:
        assert found['crop'] is None and found['backend'] == 'cv2'


def test_pipelines_become_json():
    """Without what loads annotations, of the data set within wrappers."""
    steps = [LOAD, dict(type='LoadAnnotations'), dict(type='Pack', scale=(3, 4), keys={'a'})]
    inner = dict(type='X', pipeline=steps)
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='Repeat', dataset=inner))))
    expected = [LOAD, dict(type='Pack', scale=[3, 4], keys=['a'])]
    assert json.loads(json.dumps(pipeline_of(cfg))) == expected
    assert _plain(dict(a=None, b=True, c=json)) == dict(a=None, b=True, c=str(json))
