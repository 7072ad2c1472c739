"""A run that is interrupted and resumed ends bit-identical to one that is not."""

import itertools
import json
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from torch.utils.data import BatchSampler, DataLoader

from hybrid_mm.checkpoint_files import checksum
from hybrid_mm.compat import workarounds
from hybrid_mm.data import PlacedSampler
from hybrid_mm.engine import ExactResumeHook
from hybrid_mm.errors import UserError


@HOOKS.register_module(force=True)
class DieHook(Hook):
    """Ends a run as a signal would: at an iteration, before or after its checkpoint."""

    def __init__(self, at: int, early: bool):
        self.at = at
        self.priority = 'HIGHEST' if early else 'LOWEST'

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.at:
            raise UserError('it died')


COMMON = """
_base_ = '{base}'
model = dict(backbone=dict(drop_path_rate=0.4))
train_dataloader = dict(num_workers=2, dataset=dict(pipeline={pipeline}))
custom_hooks = [dict(type='EMAHook')]
"""
PIPELINES = dict(
    det="""[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion'),
        dict(type='PackDetInputs')]""",
    seg="""[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs')]""",
    cls="""[
        dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32),
        dict(type='ColorJitter', brightness=0.4), dict(type='PackInputs')]""",
)
RUNS = {
    'det-iterations': 'train_cfg = dict(max_iters=9, val_interval=4)',
    'det-epochs': """
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=3, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
train_dataloader['persistent_workers'] = True
train_dataloader['batch_sampler'] = dict(type='AspectRatioBatchSampler')
log_processor = dict(by_epoch=True)
""",
    'seg-iterations': """
train_cfg = dict(max_iters=8, val_interval=4)
train_dataloader['sampler'] = dict(_delete_=True, type='InfiniteSampler', shuffle=True)
""",
    # LeViT's recipe: each image three times, gradients clipped by unit, Mixup, averaged buffers
    'cls-epochs': """
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=3, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1),
                     visualization=dict(_delete_=True, type='VisualizationHook'))
log_processor = dict(by_epoch=True)
default_scope = 'mmpretrain'
visualizer = dict(type='UniversalVisualizer')
data = dict(_delete_=True, type='CustomDataset', data_root='{root}', ann_file='labels.txt',
            data_prefix='images/training', pipeline=train_dataloader['dataset']['pipeline'])
train_dataloader.update(batch_size=2, dataset=data, collate_fn=dict(type='default_collate'))
train_dataloader['sampler'] = dict(_delete_=True, type='RepeatAugSampler', shuffle=True)
steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
val_dataloader = dict(dataset=dict(data, pipeline=steps), collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader
test_evaluator = val_evaluator = dict(_delete_=True, type='Accuracy')
optim_wrapper = dict(type='hybrid_mm.AGCOptimWrapper', clip_grad=dict(clip_factor=0.01))
custom_hooks[0].update(momentum=0.1, update_buffers=True)
arch = dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)
model = dict(
    _delete_=True, type='ImageClassifier', data_preprocessor=dict(num_classes=2),
    backbone=dict(type='hybrid_mm.VAN', arch=arch, drop_path_rate=0.4, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=8, topk=(1,),
              loss=dict(type='LabelSmoothLoss', mode='original', label_smooth_val=0.1)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
""",
}


def logged(work_dir):
    """The last logged values of every training step and every validation."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            for key in ('time', 'data_time', 'memory'):
                entry.pop(key, None)
            found['loss' in entry, entry.get('step', entry.get('iter'))] = entry
    return found


@pytest.mark.parametrize(
    'case',
    [pytest.param(c, marks=[pytest.mark.slow] * c.endswith('epochs')) for c in RUNS],
)
def test_bit_identical(case, tool, det_config, seg_config, tiny_ade, tmp_path, monkeypatch):
    epochs, task = 'epochs' in case, case[:3]
    monkeypatch.setattr('time.sleep', lambda _: None)  # MMEngine's pause between epochs
    base = det_config if task == 'det' else seg_config
    text = COMMON.format(base=base, pipeline=PIPELINES[task])
    text += RUNS[case].replace('{root}', str(tiny_ade))
    labels = [f'{i}.png {i % 2}\n' for i in range(8)]
    (tiny_ade / 'labels.txt').write_text(''.join(labels))

    def run(name, *flags, hook=''):
        config = tmp_path / 'run.py'
        config.write_text(text + hook)
        return tool('train', config, '--seed', '3', '--work-dir', tmp_path / name, *flags)

    status, err = run('whole')
    assert status == 0, err
    # after a checkpoint and before its validation; between checkpoints
    for number, at in enumerate((8, 11) if epochs else (4, 7)):
        torch.manual_seed(random.randrange(2**31))
        np.random.seed(random.randrange(2**31))
        hook = f"\ncustom_hooks.append(dict(type='DieHook', at={at}, early={number == 1}))\n"
        status, err = run('cut', *['--resume'] * number, hook=hook)
        assert status != 0 and 'it died' in err
    status, err = run('cut', '--resume')
    assert status == 0, err
    name = 'epoch_3' if epochs else {'det': 'iter_9', 'seg': 'iter_8'}[task]
    whole, cut = (
        torch.load(tmp_path / n / f'{name}.pth', weights_only=False) for n in ('whole', 'cut')
    )
    parts = 'state_dict', 'optimizer', 'ema_state_dict', 'param_schedulers'
    first, second = (checksum({k: c.get(k) for k in parts}) for c in (whole, cut))
    assert first == second
    for key, value in whole['state_dict'].items():
        assert torch.equal(value, cut['state_dict'][key]), key
    assert whole.get('param_schedulers') == cut.get('param_schedulers')
    assert logged(tmp_path / 'whole') == logged(tmp_path / 'cut')
    if task == 'cls':  # running statistics are averaged with the weights, and both are evaluated
        key = 'backbone.stages.0.blocks.0.norm1.running_mean'
        last, average = whole['ema_state_dict'][f'module.{key}'], whole['state_dict'][key]
        assert not torch.allclose(last, average)
        config, checkpoint = tmp_path / 'run.py', tmp_path / 'cut' / f'{name}.pth'
        status, err = tool('test', config, checkpoint, '--work-dir', tmp_path / 'tested')
        assert status == 0, err
        (tested,) = tmp_path.glob('tested/*/*.json')
        validated = logged(tmp_path / 'cut')[False, 3]
        assert json.loads(tested.read_text())['accuracy/top1'] == validated['accuracy/top1']


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_draws_of_an_iteration(monkeypatch):
    """They differ by seed, process and iteration, and depend on nothing else."""
    module, hook, seen = sys.modules[ExactResumeHook.__module__], ExactResumeHook(), {}
    for seed, rank, number in itertools.product((0, 1), (0, 1, 2), (0, 1, 10)):
        monkeypatch.setattr(module, 'get_rank', lambda rank=rank: rank)
        hook.before_train_iter(SimpleNamespace(seed=seed, iter=number), 99)
        seen[seed, rank, number] = draws()
        hook.before_train_iter(SimpleNamespace(seed=seed, iter=number), 3)
        assert draws() == seen[seed, rank, number]
    for generator in range(3):
        assert len({found[generator] for found in seen.values()}) == len(seen)


def test_running_statistics_are_those_of_the_first_process(monkeypatch):
    """A checkpoint has no others: a resumed run would be validated with other ones."""
    module, hub = (
        sys.modules[ExactResumeHook.__module__],
        SimpleNamespace(update_info=lambda *_: None),
    )
    model, average = torch.nn.BatchNorm1d(2), EMAHook(update_buffers=True)
    run = SimpleNamespace(model=model, hooks=[average], message_hub=hub, iter=3)
    average.before_run(run)
    monkeypatch.setattr(module, 'broadcast', lambda buffer: buffer.fill_(7))
    statistics = [m.running_mean for m in (model, average.ema_model.module)]
    for processes, expected in ((1, 0), (2, 7)):
        monkeypatch.setattr(module, 'get_world_size', lambda processes=processes: processes)
        ExactResumeHook().before_val(run)
        assert all((mean == expected).all() for mean in statistics)
    assert model.num_batches_tracked == 0 and (model.weight == 1).all()


class Counted:
    """A validation loop that counts its runs."""

    def __init__(self):
        self.runs = 0

    def run(self):
        self.runs += 1


class Iterations:
    def __init__(self, now, end, begin, interval):
        self.iter, self.max_iters, self.val_begin, self.val_interval = now, end, begin, interval

    def _decide_current_val_interval(self):
        pass


@pytest.mark.parametrize(('now', 'end', 'begin', 'interval', 'done', 'due'), [
    (4, 9, 1, 4, None, True),
    (4, 9, 1, 4, 4, False),  # it was made before the interruption
    (8, 9, 1, 4, 4, True),
    (5, 9, 1, 4, 4, False),
    (9, 9, 1, 4, 8, True),  # the last one, whatever the interval
    (6, 9, 6, 3, None, True),  # the first one
    (3, 9, 6, 3, None, False),
    (4, 9, 5, 4, None, False),
    (0, 9, 0, 4, None, False),  # nothing was trained
])  # fmt: skip
def test_validation_made_up_for(now, end, begin, interval, done, due):
    hook, info = ExactResumeHook(), {} if done is None else dict(validated_iter=done)
    hub = SimpleNamespace(runtime_info=info, update_info=info.__setitem__)
    run = SimpleNamespace(
        _resume=True,
        val_loop=Counted(),
        iter=now,
        message_hub=hub,
        train_loop=Iterations(now, end, begin, interval),
    )
    hook.before_train_epoch(run)
    assert run.val_loop.runs == due
    hook.before_train_epoch(run)  # once only
    assert run.val_loop.runs == due
    hook.before_val(run)
    assert info == dict(validated_iter=now)
    fresh = SimpleNamespace(**{**vars(run), '_resume': False, 'val_loop': Counted()})
    hook.before_train_epoch(fresh)
    assert fresh.val_loop.runs == 0


class Seen:
    """A data set that knows what was loaded."""

    def __init__(self):
        self.loaded = []

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.loaded.append(int(index))
        return int(index)


@pytest.mark.parametrize('placed', [True, False])
@pytest.mark.parametrize('workers', [0, 1])
def test_seen_data_are_not_loaded_again(workers, placed, monkeypatch):
    """By a loop of MMEngine 0.10.7, which takes a batch for each iteration that was trained."""
    monkeypatch.delattr(InfiniteSampler, 'skip', raising=False)

    def loader():
        data = Seen()
        settings = dict(type='InfiniteSampler', seed=7)
        sampler = PlacedSampler(settings, data) if placed else InfiniteSampler(data, seed=7)
        several = dict(num_workers=workers, persistent_workers=True) if workers else {}
        return DataLoader(data, 2, sampler=sampler, collate_fn=list, **several)

    whole = [batch for _, batch in zip(range(7), loader(), strict=False)]
    cut = loader()
    loop = SimpleNamespace(iter=4, dataloader=cut, dataloader_iterator=iter(cut))
    assert workarounds.b10_skip_seen_data(loop)
    assert [next(loop.dataloader_iterator) for _ in range(4)] == [None] * 4
    assert cut.dataset.loaded == []
    assert [next(loop.dataloader_iterator) for _ in range(3)] == whole[4:]


@pytest.mark.parametrize('case', ['start', 'new', 'other sampler', 'other batches', 'epochs'])
def test_loops_that_need_no_help(case):
    data = Seen()
    sampler = (DefaultSampler if case == 'other sampler' else InfiniteSampler)(data)
    batches = BatchSampler(sampler, 2, drop_last=False)
    if case == 'other batches':  # which may take more or fewer samples than are in a batch
        batches = type('Grouped', (BatchSampler,), {})(sampler, 2, drop_last=False)
    iterator = SimpleNamespace(skip_iter=None) if case == 'new' else iter(batches)
    loop = SimpleNamespace(
        iter=0 if case == 'start' else 4,
        dataloader=DataLoader(data, batch_sampler=batches),
        dataloader_iterator=None if case == 'epochs' else iterator,
    )
    assert not workarounds.b10_skip_seen_data(loop)
    assert loop.dataloader_iterator in (None, iterator)
