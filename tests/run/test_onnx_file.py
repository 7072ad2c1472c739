"""ONNX files in the place of a config's model."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.onnx_file import config_of_file, is_onnx, set_onnx_model, split_options

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
RESIZE = dict(type='Resize', scale=(64, 32), keep_ratio=True)


def config(pipeline, **settings):
    dataset = dict(type='BaseSegDataset', metainfo=dict(classes=('a', 'b')), pipeline=pipeline)
    loader = dict(dataset=dict(type='RepeatDataset', dataset=dataset))
    found = dict(default_scope='mmseg', model=dict(type='EncoderDecoder'), test_dataloader=loader)
    return Config({**found, **settings})


def file(**metadata):
    stored = dict(task='segmentation', classes=['a', 'b'], test_pipeline=[LOAD, RESIZE, PACK])
    stored |= metadata
    thresholds = dict(iou_threshold=0.6)
    return SimpleNamespace(
        file='m.onnx', task='segmentation', metadata=stored, thresholds=thresholds
    )


def test_names():
    assert is_onnx('a/model.onnx') and is_onnx('M.ONNX') and not is_onnx('x.onnx.pth')
    assert not is_onnx(None) and not is_onnx(Config(dict(a=1)))


@pytest.mark.parametrize(
    ('task', 'scope'),
    [('detection', 'mmdet'), ('segmentation', 'mmseg'), ('classification', 'mmpretrain')],
)
def test_config_of_a_file(task, scope):
    """Pairs are tuples, as Resize wants them; lists of transforms stay lists."""
    steps = [LOAD, dict(RESIZE, scale=[64, 32]), dict(type='A', transforms=[PACK], x=[[1, 2], [3]])]
    cfg = config_of_file('m.onnx', dict(task=task, classes=['a'], test_pipeline=steps))
    assert cfg.default_scope == scope
    assert cfg.model == dict(type='hybrid_mm.OnnxModel', file='m.onnx', device=None)
    _, resize, other = cfg.test_dataloader.dataset.pipeline
    assert resize.scale == (64, 32)
    assert other.transforms == [PACK] and other.x == [(1, 2), (3,)]


def test_what_is_about_the_network_goes():
    """A moving average copies the model, and a compiler, wrapper or strategy wants one of torch."""
    hooks = [dict(type='EMAHook', momentum=0.1), dict(type='ExpMomentumEMAHook'), dict(type='Mine')]
    gone = dict(load_from='x.pth', compile=True, runner_type='FlexibleRunner', strategy=dict(a=1))
    gone |= dict(data_preprocessor=dict(mean=[0]), model_wrapper_cfg=dict(type='X'))
    cfg = config([LOAD, RESIZE, PACK], custom_hooks=hooks, **gone)
    set_onnx_model(cfg, file())
    assert cfg.custom_hooks == [dict(type='Mine')]
    assert not set(gone) & set(cfg)
    assert cfg.model.type == 'hybrid_mm.OnnxModel' and cfg.model.iou_threshold == 0.6


@pytest.mark.parametrize(
    ('pipeline', 'said'),
    [
        ([LOAD, RESIZE, PACK], ''),
        ([LOAD, RESIZE, dict(type='LoadAnnotations'), dict(PACK, meta_keys=('a',))], ''),
        ([dict(LOAD, backend_args=None), dict(RESIZE, type='mmseg.Resize'), PACK], ''),
        ([LOAD, PACK], 'only in the file: Resize(scale=[64, 32], keep_ratio=True)'),
        (
            [LOAD, dict(RESIZE, scale=(64, 64)), PACK],
            'keep_ratio=True); only in the config: Resize(scale=[64, 64], keep_ratio=True)',
        ),
        ([RESIZE, LOAD, PACK], 'another order'),
    ],
)
def test_pipelines_are_compared(pipeline, said, capsys):
    set_onnx_model(config(pipeline), file())
    err = capsys.readouterr().err
    assert said in err and bool(err) == bool(said)


def test_files_that_do_not_fit():
    steps = [LOAD, RESIZE, PACK]
    with pytest.raises(UserError, match='give other labels to the same classes'):
        set_onnx_model(config(steps), file(classes=['b', 'a']))
    with pytest.raises(UserError, match='has 3 classes'):
        set_onnx_model(config(steps), file(classes=['a', 'b', 'c']))
    with pytest.raises(UserError, match=r'is a model for segmentation, and .* of detection'):
        set_onnx_model(config(steps, default_scope='mmdet', model=dict(type='FCOS')), file())
    with pytest.raises(UserError, match='has no test pipeline'):
        config_of_file('m.onnx', dict(task='detection', classes=['a']))


def test_options_of_the_network():
    of_data = {'test_dataloader.batch_size': 2, 'model_x': 1}
    thresholds = {'model.test_cfg.score_thr': 0.1, 'model.test_cfg.rcnn.nms.iou_threshold': 0.6}
    found = dict(score_threshold=0.1, iou_threshold=0.6)
    assert split_options('m.onnx', {**thresholds, **of_data}) == (found, of_data)
    assert split_options('m.onnx', None) == ({}, {})
    for key in (
        *('model.test_cfg.mode', 'data_preprocessor.mean', 'load_from'),
        'model.test_cfg.rpn.nms.iou_threshold',
    ):
        with pytest.raises(UserError, match=f'{key}: m.onnx is the network as it was exported'):
            split_options('m.onnx', {key: 1})
