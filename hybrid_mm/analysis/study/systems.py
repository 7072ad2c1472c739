"""The systems of the study, and the config of a training.

A file of ``configs/study/members`` describes a system; a file of ``configs/study/recipes`` is all
the rest of a training: data, head, optimizer, schedule.
"""

import copy
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config_folder import installed_configs

__all__ = ['SIZES', 'TASKS', 'System', 'choose', 'compose', 'digest', 'find']

TASKS = ('segmentation', 'detection')
SIZES = dict(segmentation=(256, 320), detection=(160, 160))
"""Rows and columns of the padded images of a task, which tables of positions are made for."""

_OPTIONAL = ('host', 'peer_of', 'scales', 'only_pair', 'package')
_MADE_FOR = ('img_size', 'canvas_size', 'pretrain_img_size')
_ENVIRONMENT = ('work_dir', 'resume', 'load_from', 'randomness', 'visualizer', 'vis_backends')


@dataclass(frozen=True)
class System:
    """A network of the study.

    Attributes:
        name: Its name: that of the file.
        text: What it is: the comment at the top of the file.
        backbone: Config of the backbone.
        widths: Channels of its maps.
        host: Name of the plain network that it is a modification of, or None.
        peer_of: Name of the system of this package that another package's is compared with.
        scales: Factors by which maps of one stride are resized, or None for a pyramid.
        only_pair: It is there to be compared with its peer only.
        package: Package that it needs besides those of OpenMMLab, or None.
    """

    name: str
    text: str
    backbone: dict[str, Any]
    widths: Sequence[int]
    host: str | None = None
    peer_of: str | None = None
    scales: Sequence[float] | None = None
    only_pair: bool = False
    package: str | None = None

    @property
    def absent(self) -> bool:
        """Whether the package that it needs is not installed."""
        return self.package is not None and find_spec(self.package) is None


def find(folder: Path | None = None) -> dict[str, System]:
    """All systems by name: the plain hosts first, each followed by what it is the host of.

    Args:
        folder: The study's folder, by default that of this package.
    """
    found = {}
    folder = folder or installed_configs() / 'study'
    for path in sorted((folder / 'members').glob('*.py')):
        cfg = Config.fromfile(path)
        text = path.read_text().partition('\n')[0].removeprefix('#').strip()
        more = {key: cfg[key] for key in _OPTIONAL if key in cfg}
        found[path.stem] = System(path.stem, text, dict(cfg.backbone), tuple(cfg.widths), **more)
    hosts = {system.host for system in found.values() if system.host is not None}
    if hosts - found.keys():
        raise UserError(f'no file of {folder}/members for the hosts {sorted(hosts - found.keys())}')

    def place(name: str) -> tuple:
        system = found[name]
        pair = bool(system.peer_of or system.only_pair)
        return (
            pair,
            not system.host and name not in hosts,
            system.host or name,
            system.host or '',
            name,
        )

    return {name: found[name] for name in sorted(found, key=place)}


def choose(systems: dict[str, System], patterns: Iterable[str] | None) -> list[System]:
    """The systems whose names match one of the patterns; all without patterns.

    Args:
        systems: All systems by name.
        patterns: Names, or patterns of names with ``*``.

    Raises:
        UserError: A pattern matches none.
    """
    if not patterns:
        return list(systems.values())
    chosen = set()
    for pattern in patterns:
        names = {name for name in systems if fnmatch(name, pattern)}
        if not names:
            hint = nearest(pattern, systems) or f'; there are {", ".join(systems)}'
            raise UserError(f'--only {pattern}: no such system{hint}')
        chosen |= names
    return [system for name, system in systems.items() if name in chosen]


def compose(
    system: System, task: str, seed: int = 0, folder: Path | None = None, data: Path | None = None
) -> Config:
    """Config of a training.

    Args:
        system: The network.
        task: 'segmentation' or 'detection'.
        seed: Seed of initial values and data.
        folder: The study's folder, by default that of this package.
        data: Folder of the data set, by default that of the recipe.
    """
    path = (folder or installed_configs() / 'study') / f'recipes/{task}.py'
    cfg = copy.deepcopy(_recipe(path, os.environ.get('CAMVID_ROOT')))
    size = SIZES[task]
    cfg.model.backbone = dict(system.backbone)
    for key in _MADE_FOR:
        if key in cfg.model.backbone:
            cfg.model.backbone[key] = size
    if 'window_size' in cfg.model.backbone and system.backbone['type'].endswith('MaxViT'):
        cfg.model.backbone.window_size = tuple(side // 32 for side in size)
    widths, first = list(system.widths), cfg.model.neck.get('start_level', 0)
    if system.scales is None:
        cfg.model.neck.in_channels = widths
    else:
        cfg.model.backbone.out_indices = tuple(range(first, 4))
        cfg.model.neck = dict(
            type='mmseg.MultiLevelNeck',
            in_channels=widths[first:],
            out_channels=cfg.model.neck.out_channels,
            scales=list(system.scales)[first:],
        )
    cfg.randomness.seed = seed
    if data is not None:
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(data)
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            if 'ann_file' in evaluator:
                evaluator.ann_file = str(data / 'annotations/instances_validation.json')
    return cfg


@functools.lru_cache(4)
def _recipe(path: Path, root: str | None) -> Config:
    """A recipe, which is read once for all systems; the variable is one that it reads."""
    return Config.fromfile(path)


def digest(cfg: Config) -> str:
    """Eight hexadecimal digits of all that decides the result of a training besides the seed.

    Folders do not count.

    Args:
        cfg: What :func:`compose` gives.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key not in _ENVIRONMENT}
    root = content['train_dataloader']['dataset']['data_root']
    content.pop('data_root', None)
    text = json.dumps(content, sort_keys=True, default=str).replace(json.dumps(root)[1:-1], 'ROOT')
    return hashlib.sha256(text.encode()).hexdigest()[:8]
