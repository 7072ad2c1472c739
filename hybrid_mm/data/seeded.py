"""Augmentations seeded by the position of a sample in the run, independent of the workers."""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import Sampler

from hybrid_mm.compat.workarounds import skip_of
from hybrid_mm.data.wrapper import DatasetWrapper
from hybrid_mm.registry import DATA_SAMPLERS, DATASETS


def seed_generators(*place: int) -> None:
    """Seed Python, NumPy and torch (every device) from the numbers of a position in a run."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, 'little')
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


class Place(int):
    """Index of a sample that carries its position in the run.

    Attributes:
        place: Seed, process, epoch, and number within the epoch.
    """

    place: tuple[int, ...]


@DATA_SAMPLERS.register_module()
class PlacedSampler(Sampler):
    """Sampler that yields the indices of an inner sampler with their positions in the run.

    Args:
        sampler: Config of the inner sampler.
        dataset: The data set, from MMEngine.
        seed: The run's seed, from MMEngine.
    """

    def __init__(self, sampler: dict, dataset: Any, seed: int | None = None) -> None:
        defaults = dict(dataset=dataset, seed=seed)
        self.inner = ROOT_SAMPLERS.build(dict(sampler), default_args=defaults)
        self.seed = self.inner.seed if seed is None else seed
        self.epoch = self.start = 0

    def __getattr__(self, name: str) -> Any:
        # MMEngine asks with hasattr: only methods that the inner sampler has may be found
        if name.startswith('__') or name == 'inner':
            raise AttributeError(name)
        if name == 'skip' and (inner := skip_of(self.inner)):
            return lambda count: self._skip(inner, count)
        return getattr(self.inner, name)

    def _skip(self, inner: Any, count: int) -> None:
        inner(count)
        self.start = count

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the order of many samplers depends."""
        self.epoch = epoch
        if hasattr(self.inner, 'set_epoch'):
            self.inner.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Place]:
        rank = get_rank()
        for number, index in enumerate(self.inner, self.start):
            placed = Place(index)
            placed.place = (self.seed, rank, self.epoch, number)
            yield placed


@DATASETS.register_module()
class SeededDataset(DatasetWrapper):
    """Data set that seeds the random generators for every sample from its position in the run.

    Augmentations are then the same with any number of workers, and after an interruption. Acts on
    indices of a :class:`PlacedSampler` only.

    Args:
        dataset: The data set, or its config.
        lazy_init: Read the annotations at ``full_init`` only.
    """

    def __init__(self, dataset: dict | BaseDataset, lazy_init: bool = False) -> None:
        if isinstance(dataset, dict):
            extra = dict(lazy_init=True) if lazy_init else {}
            dataset = ROOT_DATASETS.build(dict(dataset, **extra))
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        place = getattr(index, 'place', None)
        if place is not None:
            seed_generators(*place)
        return self.dataset[index]
