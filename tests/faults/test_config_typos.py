"""Common slips in configs: each ends with one line that names it, before the first step.

Others stand in tests/tools/test_train_and_test.py (``test_wrong_options``).
"""

import pytest

SLIPS = [
    ('optim_wrapper.optimizer.type=AdmW', 'did you mean AdamW'),
    ('optim_wrapper.optimizer.lrr=0.1', "SGD has no argument 'lrr'; did you mean lr"),
    ('optim_wrapper.type=OptimWraper', 'did you mean OptimWrapper'),
    ('optim_wrapper.optimizer.lr=-1', 'cannot build SGD: Invalid learning rate: -1'),
    ('optim_wrapper=None', 'training needs optim_wrapper: expected a dict, got None'),
    ('model=None', 'training needs model'),
    ('train_dataloader=None', 'training needs train_dataloader'),
    ('train_cfg.type=IterBasedTrainLop', 'did you mean IterBasedTrainLoop'),
    ('train_cfg.max_iter=4', "has no argument 'max_iter'; did you mean max_iters"),
    ('train_cfg.max_iters=-3', 'train_cfg.max_iters must be a positive number, got -3'),
    ('train_cfg.val_interval=0', 'train_cfg.val_interval must be a positive number, got 0'),
    ('train_dataloader.batch_size=0', 'batch_size must be a positive number, got 0'),
    ('train_dataloader.batch_size=two', "batch_size must be a positive number, got 'two'"),
    ('train_dataloader.sampler.type=DefaultSample', 'did you mean DefaultSampler'),
    ('train_dataloader.sampler.shufle=True', 'did you mean shuffle'),
    ('train_dataloader.dataset.type=CocoDatast', 'did you mean CocoDataset'),
    ('train_dataloader.dataset.ann_fil=x', "CocoDataset has no argument 'ann_fil'"),
    (
        'train_dataloader.dataset.filter_cfg.filter_empty_gts=True',
        "train_dataloader.dataset.filter_cfg has no key 'filter_empty_gts'; did you mean",
    ),
    ('default_hooks.checkpoint.intervall=2', "'intervall'; did you mean interval"),
    ('default_hooks.checkpoint.type=CheckpointHok', 'did you mean CheckpointHook'),
    ('default_hooks.loger.interval=3', 'did you mean logger'),
    ('custom_hooks=[EMAHook]', "custom_hooks.0 must be a dict, got the text 'EMAHook'"),
    ('param_scheduler=StepLR', "must be a list of dicts, got the text 'StepLR'"),
    ('val_evaluator.metric=bbx', "metric should be one of 'bbox', 'segm'"),
    ('val_evaluator.type=CocoMetrik', 'did you mean CocoMetric'),
    ('val_evaluator.ann_file=nowhere.json', "No such file or directory: 'nowhere.json'"),
    ('default_scope=mmdt', "is 'mmdt'; expected one of mmdet, mmseg, mmpretrain"),
    ('randomness.sed=1', "randomness has no key 'sed'; did you mean seed"),
    ('log_processor.windowsize=3', 'did you mean window_size'),
    ('resume=yes', "resume must be True or False, got 'yes'"),
    ('model.neck.in_channels=[8,8,16]', 'the backbone returns maps of [8, 8, 16, 16] channels'),
    ('model.neck.in_channels=[8,8,16,99]', 'model.neck.in_channels=8,8,16,16'),
    ('model.backbone.out_indices=[0,1,2,7]', 'out_indices must be distinct stages in 0..3'),
    ('model.backbone.arch.depth=[1,1,1,1]', "unknown ['depth']"),
    ('model.type=FCOSS', 'did you mean FCOS'),
    ('model.bbox_head.loss_cls.type=FocalLos', 'did you mean FocalLoss'),
    ('model.data_preprocessor.mean=[0,0]', 'mean has 2 values, and DetDataPreprocessor takes one'),
    ('model.test_cfg.nms.type=nmss', "nms.type 'nmss' is not known; did you mean nms"),
    ('visualizer.type=DetLocalVisualiser', 'did you mean DetLocalVisualizer'),
    ('skip_bad_sample=3', 'did you mean skip_bad_samples'),
    ('skip_bad_samples=-1', 'skip_bad_samples must not be negative, got -1'),
]  # fmt: skip


@pytest.mark.parametrize(('option', 'message'), SLIPS, ids=[option for option, _ in SLIPS])
def test_slip(fails, det_config, tmp_path, option, message):
    text = fails('train', det_config, '--work-dir', tmp_path / 'w', '--cfg-options', option)
    assert message in text


@pytest.mark.parametrize('value', ['[1,2', 'dict(type="StepLR",gamma=0.1,step_size=1)'])
def test_values_that_cannot_be_read(tool, det_config, capsys, value):
    with pytest.raises(SystemExit, match='2'):
        tool('train', det_config, '--cfg-options', f'param_scheduler={value}')
    assert 'set a dict key by key' in capsys.readouterr().err
