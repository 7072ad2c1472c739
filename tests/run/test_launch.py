"""Flags of the command line in the config of a run, and mixed precision of both tools."""

import argparse
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict

from hybrid_mm.compat.torch_api import get_autocast_dtype, is_autocast_enabled
from hybrid_mm.errors import UserError
from hybrid_mm.run import launch, resume, tta
from hybrid_mm.run.checks import data
from hybrid_mm.run.launch import set_exact_resume


@pytest.mark.parametrize(('gpu', 'dtype', 'wrapper', 'expected'), [
    # without the flag, only what a CPU cannot do is changed
    (True, None, dict(type='OptimWrapper'), dict(type='OptimWrapper')),
    (False, None, dict(type='OptimWrapper'), dict(type='OptimWrapper')),
    (True, None, dict(type='AmpOptimWrapper'),
     dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    (True, None, dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    (False, None, dict(type='AmpOptimWrapper', loss_scale=512.0, dtype='float16', use_fsdp=False),
     dict(type='OptimWrapper')),
    (False, None, dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    (False, None, dict(type='ApexOptimWrapper'), dict(type='ApexOptimWrapper')),
    # adaptive clipping stays
    (True, None, dict(type='hybrid_mm.AGCAmpOptimWrapper'),
     dict(type='hybrid_mm.AGCAmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    (True, 'auto', dict(type='hybrid_mm.AGCOptimWrapper'),
     dict(type='hybrid_mm.AGCAmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    (False, None, dict(type='hybrid_mm.AGCAmpOptimWrapper'),
     dict(type='hybrid_mm.AGCOptimWrapper')),
    (False, 'auto', dict(type='hybrid_mm.AGCOptimWrapper'),
     dict(type='hybrid_mm.AGCAutocastOptimWrapper', dtype='bfloat16')),
    # switched off
    (True, 'off', dict(type='AmpOptimWrapper', loss_scale='dynamic'), dict(type='OptimWrapper')),
    (False, 'off', dict(type='AmpOptimWrapper'), dict(type='OptimWrapper')),
    (False, 'off', dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16'),
     dict(type='OptimWrapper')),
    (True, 'off', dict(), dict(type='OptimWrapper')),
    (True, 'off', dict(type='ApexOptimWrapper'), '--no-amp needs .* got ApexOptimWrapper'),
    # as in the config, else the device's default
    (True, 'auto', dict(), dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    (True, 'auto', dict(dtype='bfloat16', type='AmpOptimWrapper'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    (False, 'auto', dict(type='OptimWrapper'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    (False, 'auto', dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    # the one named wins, and a scale of the config stays
    (True, 'float16', dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=128.0),
     dict(type='AmpOptimWrapper', dtype='float16', loss_scale=128.0)),
    (True, 'bfloat16', dict(type='AmpOptimWrapper', dtype='float16'),
     dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16')),
    (True, 'float16', dict(type='hybrid_mm.AutocastOptimWrapper', dtype='bfloat16'),
     dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    (False, 'float16', dict(type='OptimWrapper'), '--amp float16 needs a GPU'),
    (True, 'auto', dict(type='ApexOptimWrapper'), '--amp needs .* got ApexOptimWrapper'),
])  # fmt: skip
def test_training(monkeypatch, capsys, gpu, dtype, wrapper, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config(dict(optim_wrapper=dict(wrapper, optimizer=dict(type='SGD', lr=0.1))))
    flags = (None, True) if dtype == 'off' else (dtype,)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            launch.set_training_amp(cfg, *flags)
        return
    launch.set_training_amp(cfg, *flags)
    assert cfg.optim_wrapper.pop('optimizer') == dict(type='SGD', lr=0.1)
    assert dict(cfg.optim_wrapper) == expected
    name = wrapper.get('type', '')
    line = f'warning: {name} needs a GPU: training in float32; --amp trains in bfloat16\n'
    silent = gpu or dtype is not None or not name.endswith('AmpOptimWrapper')
    assert capsys.readouterr().err == ('' if silent else line)


def test_both_flags_of_mixed_precision():
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))
    with pytest.raises(UserError, match='--amp and --no-amp exclude each other'):
        launch.set_training_amp(cfg, 'auto', off=True)


def test_of_a_test_run(monkeypatch, noting_detector):
    runner, x = argparse.Namespace(model=noting_detector()), torch.rand(2, 4)
    for dtype, inside in (
        (None, torch.float32),
        ('auto', torch.bfloat16),
        ('bfloat16', torch.bfloat16),
    ):
        with launch.testing_amp(runner, dtype):
            runner.model(x)
        assert runner.model.inside == inside
    with pytest.raises(UserError, match='needs a GPU'), launch.testing_amp(runner, 'float16'):
        pass
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for dtype in ('auto', 'float16'):
        with launch.testing_amp(runner, dtype):
            assert is_autocast_enabled('cuda')
            assert get_autocast_dtype('cuda') == torch.float16
    assert not is_autocast_enabled('cuda')


def flags(**changes):
    return argparse.Namespace(
        **{
            **dict(
                cfg_options=None,
                work_dir=None,
                no_pin_memory=False,
                no_persistent_workers=False,
                seed=None,
                deterministic=False,
                launcher='none',
                local_rank=0,
            ),
            **changes,
        }
    )


def test_config_of_a_run(det_config, tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')
    del os.environ['CUBLAS_WORKSPACE_CONFIG']
    text = (
        '\nfor _x in (train_dataloader, val_dataloader):\n    _x.update(pin_memory=True, '
        "persistent_workers=True)\ntrain_dataloader['num_workers'] = 2\n"
    )
    path = tmp_path / 'my_run.py'
    path.write_text(det_config.read_text() + text)
    path = str(path)
    cfg = launch.config_of_run(flags(config=path))
    assert cfg.work_dir == os.path.join('work_dirs', 'my_run')
    assert cfg.launcher == 'none'
    assert (cfg.train_dataloader.pin_memory, cfg.train_dataloader.persistent_workers) == (True,) * 2
    # torch refuses persistent workers where there are none
    assert (cfg.val_dataloader.pin_memory, cfg.val_dataloader.persistent_workers) == (True, False)
    assert cfg.randomness == dict(seed=0)
    cfg = launch.config_of_run(flags(config=path, work_dir='a/b', no_pin_memory=True, seed=7))
    assert cfg.work_dir == 'a/b' and cfg.randomness == dict(seed=7)
    assert (cfg.train_dataloader.pin_memory, cfg.train_dataloader.persistent_workers) == (
        False,
        True,
    )
    assert cfg.test_dataloader.pin_memory is False
    options = dict(work_dir='of_config')
    assert 'CUBLAS_WORKSPACE_CONFIG' not in os.environ
    cfg = launch.config_of_run(
        flags(config=path, no_persistent_workers=True, deterministic=True, cfg_options=options)
    )
    assert cfg.work_dir == 'of_config'
    assert cfg.randomness == dict(seed=0, deterministic=True)
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    assert (cfg.train_dataloader.pin_memory, cfg.train_dataloader.persistent_workers) == (
        True,
        False,
    )


def test_training_without_validation(det_config):
    cfg = Config.fromfile(det_config)
    cfg.default_hooks.checkpoint.update(save_best='auto', rule='greater', max_keep_ckpts=2)
    before = dict(cfg.default_hooks.checkpoint)
    launch.disable_validation(cfg)
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    del before['save_best']  # which would ask for a metric of the validation
    assert dict(cfg.default_hooks.checkpoint) == before
    bare = Config(dict(default_hooks=dict()))
    launch.disable_validation(bare)
    assert bare.default_hooks == {}


def test_seed_of_a_resumed_run(tmp_path, capsys):
    """The seed of the checkpoint, whatever the run asks for; the newest one with 'auto'."""
    meta = dict(epoch=5, iter=70, seed=1234)
    saved = dict(state_dict={}, optimizer={}, meta=meta)
    path = tmp_path / 'iter_70.pth'
    torch.save(saved, path)
    work = dict(work_dir=str(tmp_path))
    for checkpoint, cfg in (
        (str(path), dict(work)),
        ('auto', dict(work)),
        ('auto', dict(work, randomness=dict(deterministic=True))),
        ('auto', dict(work, randomness=dict(seed=1234))),
        (None, dict(work, resume=True)),
        (None, dict(work_dir=str(tmp_path / 'new'), resume=True, load_from=str(path))),
    ):
        cfg = Config(cfg)
        before = cfg.get('resume'), cfg.get('load_from')
        assert resume.set_resume(cfg, checkpoint) == str(path)
        assert (cfg.get('resume'), cfg.get('load_from')) == before  # the config is stored
        assert cfg.randomness.seed == 1234
    text = f'warning: resume=True of the config: this run continues from {path}\n'
    assert capsys.readouterr().err == 2 * text
    untouched = Config(dict(work_dir=str(tmp_path / 'new'), load_from='weights.pth'))
    assert resume.set_resume(untouched, None) is None
    assert untouched.load_from == 'weights.pth' and 'randomness' not in untouched
    assert capsys.readouterr().err == ''
    other = Config(dict(work, randomness=dict(seed=0)))
    resume.set_resume(other, 'auto')
    assert other.randomness.seed == 1234
    assert capsys.readouterr().err == (
        f'warning: --resume: the seed is that of {path}, 1234; 0 is ignored\n'
    )
    torch.save(saved | dict(meta=dict(epoch=5, iter=70)), path)
    resume.set_resume(other := Config(dict(work, randomness=dict(seed=3))), 'auto')
    assert other.randomness.seed == 3
    empty = Config(dict(work_dir=str(tmp_path / 'none'), load_from='weights.pth'))
    assert resume.set_resume(empty, 'auto') is None and empty.load_from == 'weights.pth'
    err = capsys.readouterr().err
    assert 'has no checkpoint; training starts from the weights of weights.pth' in err
    empty.load_from = None
    assert resume.set_resume(empty, 'auto') is None
    assert 'training starts from the beginning' in capsys.readouterr().err


def test_a_checkpoint_is_read_once(tmp_path, monkeypatch):
    """To find it, for its seed and for the checks of a training."""
    for number in (1, 2):
        saved = dict(state_dict={}, optimizer={}, meta=dict(seed=number, epoch=0, iter=number))
        torch.save(saved, tmp_path / f'iter_{number}.pth')
    read = []
    original = resume.read_checkpoint
    monkeypatch.setattr(resume, 'read_checkpoint', lambda path: read.append(path) or original(path))
    for checkpoint in ('auto', str(tmp_path / 'iter_2.pth')):
        cfg = Config(dict(work_dir=str(tmp_path), model={}))
        resume.set_resume(cfg, checkpoint)
        data.check_training(cfg)
        assert cfg.randomness.seed == 2
        assert read == [str(tmp_path / 'iter_2.pth')]
        read.clear()


def test_flip_of_test_time_augmentation(det_config, seg_config):
    """Without a pipeline in the config: each image as it is and mirrored, then merged."""
    models = ('hybrid_mm.InstanceTTAModel', 'hybrid_mm.SegmentationTTAModel')
    for path, model in zip((det_config, seg_config), models, strict=True):
        cfg = Config.fromfile(path)
        plain, steps = cfg.model.copy(), cfg.test_dataloader.dataset.pipeline
        tta.set_test_time_augmentation(cfg)
        assert cfg.model.type == model and cfg.model.module == plain
        *first, last = cfg.test_dataloader.dataset.pipeline
        annotations = [s for s in steps if s.type == 'LoadAnnotations']
        assert first == [s for s in steps[:-1] if s not in annotations]
        assert last.type == 'TestTimeAug'
        flips, loading, (pack,) = last.transforms
        assert [(step.type, step.prob) for step in flips] == [
            ('RandomFlip', 1.0),
            ('RandomFlip', 0.0),
        ]
        assert loading == annotations and pack.type == steps[-1].type
        if path is det_config:
            assert cfg.model.tta_cfg == dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            )
            assert {'flip', 'flip_direction', 'scale_factor', 'img_shape'} <= set(pack.meta_keys)
    own = Config.fromfile(seg_config)
    own.tta_pipeline = [dict(type='Mine')]
    tta.set_test_time_augmentation(own)
    assert own.test_dataloader.dataset.pipeline == [dict(type='Mine')]


def test_drawing(det_config, seg_config):
    for path, expected in (
        (det_config, dict(draw=True, show=False, wait_time=2.5, interval=3, test_out_dir='x')),
        (seg_config, dict(draw=True, show=False, wait_time=2.5, interval=3)),
    ):
        cfg = Config.fromfile(path)
        launch.set_visualization(cfg, False, 'x', 2.5, 3)
        hook = cfg.default_hooks.visualization
        assert {k: v for k, v in hook.items() if k != 'type'} == expected
        assert cfg.visualizer.get('save_dir') == ('x' if path is seg_config else None)
    cfg = Config.fromfile(seg_config)
    launch.set_visualization(cfg, False, 'x', 0, None)
    assert cfg.default_hooks.visualization.interval == 1  # of MMSegmentation 1.2 in tests: 50
    cls = Config(dict(default_scope='mmpretrain', default_hooks=dict(visualization=dict())))
    launch.set_visualization(cls, True, 'y', 0, None)
    assert cls.default_hooks.visualization == dict(show=True, wait_time=0, enable=True, out_dir='y')
    with pytest.raises(UserError, match='need a visualization hook'):
        launch.set_visualization(Config(dict(default_scope='mmdet')), True, None, 0, None)


def test_learning_rate_by_batch_size():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    launch.set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    for bad in (Config(dict()), Config(dict(auto_scale_lr=dict(enable=True)))):
        with pytest.raises(UserError, match='does not say for which total batch size'):
            launch.set_auto_scale_lr(bad)


def test_broken_samples_may_be_left_out_in_training_only(det_config):
    cfg = Config.fromfile(det_config)
    cfg.skip_bad_samples = 4
    inner = ConfigDict(cfg.train_dataloader.dataset)
    launch.set_sample_checks(cfg)
    train, val, test = (cfg[name].dataset for name in launch.LOADERS)
    assert (train.skip_bad_samples, val.skip_bad_samples, test.skip_bad_samples) == (4, 0, 0)
    assert train.dataset == inner


def test_settings_are_added_once(det_config):
    cfg = Config.fromfile(det_config)
    cfg.custom_hooks = [dict(type='EMAHook')]
    plain = dict(cfg.train_dataloader.dataset)
    for _ in range(2):
        set_exact_resume(cfg)
        assert cfg.train_dataloader.dataset.type == 'hybrid_mm.SeededDataset'
        assert cfg.train_dataloader.dataset.dataset == plain
        assert cfg.train_dataloader.sampler == dict(
            type='hybrid_mm.PlacedSampler', sampler=dict(type='DefaultSampler', shuffle=True)
        )
        assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'hybrid_mm.ExactResumeHook']
    assert cfg.val_dataloader.dataset.type == 'CocoDataset'


def test_every_training_stops_at_losses_that_are_not_finite(monkeypatch):
    """Also those of configs of others, which have no such hook; ours have one."""
    runner = SimpleNamespace(hooks=[], model=None)
    runner.register_hook = runner.hooks.append
    monkeypatch.setattr(launch, 'build_runner', lambda cfg, **_: runner)
    monkeypatch.setattr(launch, 'add_summary', lambda *_: None)
    for _ in range(2):
        launch.training_runner(ConfigDict())
    assert [type(hook).__name__ for hook in runner.hooks].count('NonFiniteLossHook') == 1
