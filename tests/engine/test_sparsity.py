"""Masks of a sparse training: how they are drawn, kept, exchanged and saved."""

import os
import sys
from collections import OrderedDict
from datetime import timedelta

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.engine.hooks.sparsity import SparsityHook, prune_and_grow, sparse_layer_densities


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.embed = nn.Parameter(torch.ones(1, 6, 6))
        self.head = nn.Linear(8, 4)

    def forward(self, inputs, labels=None, mode='tensor'):
        x = self.head(self.norm(self.conv(inputs)).relu().mean((2, 3)) * self.embed.mean())
        return dict(loss=nn.functional.cross_entropy(x, labels)) if mode == 'loss' else x


def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 3, 8, 8, generator=generator)
    return [dict(inputs=image, labels=i % 4) for i, image in enumerate(images)]


def runner(work_dir, hook, epochs=3, model=None, hooks=(), **kwargs):
    return Runner(
        model or Model(),
        str(work_dir),
        train_dataloader=dict(
            dataset=data(),
            batch_size=4,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[hook, *hooks],
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=f'{work_dir.name}{epochs}',
        **kwargs,
    )


@pytest.fixture(autouse=True)
def _no_scope_left(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


def test_training_by_iterations(tmp_path):
    hook = SparsityHook(0.4, interval=2)
    run = runner(tmp_path, hook)
    run._train_dataloader['sampler'] = dict(type='InfiniteSampler')
    run._train_loop = dict(type='IterBasedTrainLoop', max_iters=7)
    run.train()
    assert run.iter == 7


def zeros(model):
    return {n: (p == 0) for n, p in model.named_parameters() if p.ndim in (2, 4)}


def test_training_keeps_the_share_of_zeros_and_exchanges_them(tmp_path):
    hook = SparsityHook(0.4, interval=3, prune_rate=0.5)
    run = runner(tmp_path, hook)
    seen = []
    after = hook.after_train_iter

    def watch(runner, *args, **kwargs):
        after(runner, *args, **kwargs)
        seen.append(zeros(runner.model))
        for name, mask in hook.masks.items():
            assert (dict(runner.model.named_parameters())[name][~mask] == 0).all()

    hook.after_train_iter = watch
    run.train()
    assert set(hook.masks) <= {'conv.weight', 'head.weight'} and hook.masks
    total = sum(z.numel() for z in seen[-1].values())
    dead = sum(m.numel() - int(m.sum()) for m in hook.masks.values())
    assert 0.2 < dead / total < 0.6
    first, last = seen[0], seen[-1]
    assert any((first[n] != last[n]).any() for n in first)
    assert not (run.model.norm.weight == 0).any() and (run.model.embed != 0).all()


def test_resumed_training_goes_on_with_the_same_masks(tmp_path):
    hook = SparsityHook(0.4, interval=3)
    runner(tmp_path, hook, 2).train()
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['hybrid_mm_sparsity']
    assert saved and all(torch.equal(saved[n], hook.masks[n]) for n in saved)
    again = SparsityHook(0.4)  # exchanges nothing more
    run = runner(tmp_path, again, 3, resume=True)
    run.train()
    assert run.iter == 12
    assert all(torch.equal(saved[n], again.masks[n]) for n in saved)


def test_fine_tuning_keeps_the_zeros_of_loaded_weights(tmp_path):
    model = Model()
    with torch.no_grad():
        model.conv.weight[:, 1] = 0
    run = runner(tmp_path, SparsityHook(init='zeros', scope='conv'), 1, model)
    run.train()
    assert (run.model.conv.weight[:, 1] == 0).all()
    assert (run.model.conv.weight[:, 0] != 0).all() and (run.model.head.weight != 0).all()


def test_average_of_the_weights_is_as_sparse(tmp_path):
    """Checkpoints contain the average as weights: fine-tuning finds the zeros there."""
    hook = SparsityHook(0.4, interval=3)
    average = dict(type='EMAHook', momentum=0.1)
    runner(tmp_path, hook, 2, hooks=[average]).train()
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert all(torch.equal(saved[n] != 0, mask) for n, mask in hook.masks.items())
    model = Model()
    model.load_state_dict(saved)
    tuning = SparsityHook(init='zeros')
    runner(tmp_path, tuning, 3, model).train()
    assert tuning.masks.keys() == hook.masks.keys()
    assert all(torch.equal(tuning.masks[n], mask) for n, mask in hook.masks.items())


def test_average_of_what_comes_alive_starts_at_its_value(tmp_path):
    hook = SparsityHook(0.4, interval=3)
    average = EMAHook(momentum=0.1)
    seen = []

    class Watch(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 2:  # the first exchange
                seen.append({name: born.clone() for name, born in hook.born.items()})
            if runner.iter == 3:
                own = dict(runner.model.named_parameters())
                averages = dict(average.ema_model.module.named_parameters())
                for name, born in seen[0].items():
                    assert born.any() and own[name][born].abs().min() > 0, name
                    assert torch.equal(averages[name][born], own[name][born]), name
                    old = hook.masks[name] & ~born
                    assert not torch.equal(averages[name][old], own[name][old]), name

    runner(tmp_path, hook, 2, hooks=[average, Watch()]).train()
    assert len(seen) == 1


def test_first_batch_of_a_batch_sampler_is_one_batch(tmp_path):
    class Batches(list):
        batch_size = 4

    class Watched(list):
        seen = 0

        def __getitem__(self, index):
            self.seen += 1
            return super().__getitem__(index)

    hook, images = SparsityHook(), Watched(data())
    run = runner(tmp_path, hook)
    run._train_dataloader = torch.utils.data.DataLoader(
        images, batch_sampler=Batches([[0, 1, 2, 3], [4, 5, 6, 7]])
    )
    run._train_loop = run.build_train_loop(run._train_loop)
    hook.before_train(run)
    assert hook.masks and images.seen == 4


def _train_rank(path):
    """Body of a process of the next test: the other rank's batch spares the head."""
    module, rank = sys.modules[SparsityHook.__module__], int(os.environ['RANK'])
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=30))
    spared = 1.0 if rank else 0.5
    module.sparse_layer_densities = lambda *_: {'conv.weight': 0.5, 'head.weight': spared}
    hook = SparsityHook(0.4, interval=3)
    run = runner(path, hook, 1)
    torch.manual_seed(rank)
    run.train()
    torch.save(hook.masks, f'{path}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_ranks_have_the_same_masks(tmp_path, fork):
    assert fork([lambda: _train_rank(tmp_path)] * 2, 90) == [0, 0], fork.text
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    assert first.keys() == second.keys() == {'conv.weight', 'head.weight'}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dense_tensors_stay_whole(tmp_path, monkeypatch):
    module = sys.modules[SparsityHook.__module__]
    for density, whole in ((0.95, False), (0.985, False), (0.99, True), (1.0, True)):
        found = {'conv.weight': density, 'head.weight': 0.5}
        monkeypatch.setattr(module, 'sparse_layer_densities', lambda *_, found=found: found)
        hook = SparsityHook()
        run = runner(tmp_path / str(density), hook)
        run._train_loop = run.build_train_loop(run._train_loop)
        hook.before_train(run)
        assert ('conv.weight' not in hook.masks) == whole
        assert 'head.weight' in hook.masks


def test_densities_are_asked_for_the_kept_part(tmp_path, monkeypatch):
    """Not for the part that is zero; masks then have about that density, by chance."""
    asked, module = [], sys.modules[SparsityHook.__module__]

    def densities(weights, gradients, density):
        asked.append(density)
        return {'conv.weight': 0.3, 'head.weight': 0.8}

    monkeypatch.setattr(module, 'sparse_layer_densities', densities)
    model = Model()
    model.conv = nn.Conv2d(3, 800, 3)
    model.norm, model.head = nn.BatchNorm2d(800), nn.Linear(800, 20)
    hook = SparsityHook(0.35)
    run = runner(tmp_path, hook, model=model)
    run._train_loop = run.build_train_loop(run._train_loop)
    hook.before_train(run)
    assert asked == [pytest.approx(0.65)]
    assert hook.masks['conv.weight'].float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert hook.masks['head.weight'].float().mean().item() == pytest.approx(0.8, abs=0.02)


def test_parameters_are_reported(tmp_path):
    hook = SparsityHook(init='zeros')
    model = Model()
    with torch.no_grad():
        model.head.weight[0] = 0  # 8 of the 216 + 32 numbers
    run = runner(tmp_path, hook, 1, model)
    run.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '1 tensors masked, 240 of 248 weights alive (3.2% sparse)' in log
    assert 'the model has 304 of 312 parameters' in log


def test_first_batch_leaves_no_trace(tmp_path):
    hook = SparsityHook()
    run = runner(tmp_path, hook)
    run._train_loop = run.build_train_loop(run._train_loop)
    hook.before_train(run)
    model = run.model
    assert (model.norm.running_mean == 0).all() and model.norm.num_batches_tracked == 0
    assert all(p.grad is None for p in model.parameters())


def test_densities_follow_the_scores():
    weights = dict(a=torch.ones(10), b=torch.ones(10), c=torch.ones(20))
    gradients = dict(a=torch.full((10,), 3.0), b=-torch.arange(10.0) / 10, c=torch.zeros(20))
    found = sparse_layer_densities(weights, gradients, 15 / 40)
    assert found == pytest.approx(dict(a=1.0, b=0.5, c=0.0))


def test_exchange_of_a_sparse_tensor_is_a_part_of_what_is_alive():
    """200 of 10000 alive, by their sizes and not their signs: 0.25 of them are 50."""
    weight = torch.zeros(10000)
    weight[:200] = torch.arange(1.0, 201) * (1 - 2 * (torch.arange(200) % 2))
    weight[200:] = 1000.0  # dead ones do not count
    mask = torch.arange(10000) < 200
    new = prune_and_grow(weight, mask, 0.25)
    assert new[50:200].all()
    assert int(new.sum()) == pytest.approx(200, abs=40)
    assert int(new[:50].sum()) <= 3  # by chance
    assert torch.equal(mask, torch.arange(10000) < 200)
    assert torch.equal(prune_and_grow(weight, mask, 0.0), mask)


def test_exchange_takes_the_smallest_and_adds_as_many():
    weight = torch.arange(1.0, 10001).view(100, 100)
    mask = torch.arange(10000).view(100, 100) < 5000
    new = prune_and_grow(weight * mask, mask, 0.1)
    assert not new.flatten()[:500].all() and new.flatten()[500:5000].all()
    assert int(new.sum()) == pytest.approx(5000, abs=120)
    assert int(new[50:].sum()) > 300


def test_rate_falls_by_a_cosine():
    hook = SparsityHook(prune_rate=0.5)
    rates = [hook.rate(p) for p in (0, 0.5, 1)]
    assert rates == pytest.approx([0.5, 0.2525, 0.005])


def test_wrong_arguments(tmp_path):
    for kwargs, message in (
        (dict(init='erk'), "init must be 'snip' or 'zeros'"),
        (dict(sparsity=1.0), r'sparsity must lie in \(0, 1\)'),
        (dict(init='zeros', interval=10), 'got 10'),
    ):
        with pytest.raises(ValueError, match=message):
            SparsityHook(**kwargs)
    with pytest.raises(ValueError, match=r"under scope='backbone\.'"):
        runner(tmp_path, SparsityHook(scope='backbone.')).train()
    with pytest.raises(ValueError, match='found no zeros'):
        runner(tmp_path, SparsityHook(init='zeros'), 4).train()
    hook = SparsityHook()
    hook.masks = {'conv.weight': torch.ones(2, 2) > 0}
    with pytest.raises(
        ValueError, match=r'mask \(2, 2\) of conv\.weight, the model \(8, 3, 3, 3\)'
    ):
        runner(tmp_path, hook, 5).train()
