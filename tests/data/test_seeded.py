"""Samples whose random numbers depend on seed, process, epoch and place only."""

import collections
import random
import sys

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATA_SAMPLERS
from mmpretrain.datasets.samplers import RepeatAugSampler
from torch.utils.data import DataLoader

from hybrid_mm.data.seeded import Place, PlacedSampler, SeededDataset


class Drawn(BaseDataset):
    def load_data_list(self):
        return [dict(x=i) for i in range(10)]

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_samples_do_not_depend_on_workers_or_the_start(workers):
    data = SeededDataset(Drawn())
    sampler = PlacedSampler(dict(type='InfiniteSampler'), data, seed=5)
    sampler.skip(6)
    loader = DataLoader(data, 2, sampler=sampler, num_workers=workers, collate_fn=list)
    found = [sample for _, batch in zip(range(4), loader, strict=False) for sample in batch]
    whole = PlacedSampler(dict(type='InfiniteSampler'), data, seed=5)
    places = [place for _, place in zip(range(14), whole, strict=False)][6:]
    assert all(isinstance(place, Place) for place in places)
    assert found == [data[place] for place in places]
    assert len({sample[1] for sample in found}) == len(found)


def test_processes_draw_other_numbers(monkeypatch):
    """For the same sample in the same epoch; each process draws the same again when asked again."""
    data, found, module = SeededDataset(Drawn()), [], sys.modules[PlacedSampler.__module__]
    for seed, rank in ((5, 0), (5, 1), (5, 2), (6, 0)):
        monkeypatch.setattr(module, 'get_rank', lambda rank=rank: rank)
        sampler = PlacedSampler(dict(type='DefaultSampler', shuffle=False), data, seed=seed)
        (first, *_), again = ([data[i] for i in sampler] for _ in '12')
        assert first == again[0]
        found.append(first)
    assert [sample[0] for sample in found] == [0] * 4
    for generator in (1, 2, 3):
        assert len({sample[generator] for sample in found}) == 4


def test_order_is_that_of_the_inner_sampler():
    data = SeededDataset(Drawn())
    plain = DATA_SAMPLERS.build(dict(type='DefaultSampler', shuffle=True, dataset=data, seed=5))
    placed = PlacedSampler(dict(type='DefaultSampler', shuffle=True), data, seed=5)
    orders = []
    for epoch in (0, 1, 7):
        plain.set_epoch(epoch)
        placed.set_epoch(epoch)
        orders.append(list(placed))
        assert orders[-1] == list(plain)
        assert [i.place for i in placed] == [(5, 0, epoch, n) for n in range(10)]
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize('processes', [1, 3])
def test_repeated_augmentation(monkeypatch, processes):
    """Three versions of each image, dealt out to the processes; a third of the images an epoch."""
    data, module = SeededDataset(Drawn()), sys.modules[RepeatAugSampler.__module__]
    orders, found = [], []
    for rank in range(processes):
        monkeypatch.setattr(module, 'get_dist_info', lambda rank=rank: (rank, processes))
        monkeypatch.setattr(
            sys.modules[PlacedSampler.__module__], 'get_rank', lambda rank=rank: rank
        )
        sampler = PlacedSampler(dict(type=RepeatAugSampler), data, seed=5)
        assert len(sampler) == -(-10 // processes)
        sampler.set_epoch(1)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler) and orders[-1] == list(sampler)
        sampler.set_epoch(2)
        assert orders[-1] != list(sampler)
        found += [data[i] for i in orders[-1]]
    counts = collections.Counter(index for index, *_ in found)
    assert set(counts.values()) <= {1, 2, 3} and max(counts.values()) == 3 and len(counts) == 4
    assert len({sample[1] for sample in found}) == len(found)  # every version is another one
    if processes == 3:
        assert orders[0] == orders[1] == orders[2]


def test_epochs_and_processes_draw_other_numbers():
    data = SeededDataset(Drawn())
    sampler = PlacedSampler(dict(type='DefaultSampler', shuffle=False), data, seed=5)
    assert len(sampler) == 10 and not hasattr(sampler, 'skip')
    first = [data[i] for i in sampler]
    assert first == [data[i] for i in sampler]
    sampler.set_epoch(1)
    assert not {s[1] for s in first} & {s[1] for s in (data[i] for i in sampler)}
    assert data[3][0] == 3 and data[3][1] != data[3][1]
