"""One network of every registered family, for tables of what works with all of them."""

import copy
import inspect
from collections.abc import Mapping
from importlib import import_module

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from torch import nn

from hybrid_mm.registry import MODELS as OURS
from hybrid_mm.run.config_folder import installed_configs

VARIANTS = {
    'ACmix-PVT': dict(type='hybrid_mm.PVT', acmix=True),
    'ACmix-SAN': dict(type='hybrid_mm.SAN', acmix=True),
    'HorNet-GF': dict(type='hybrid_mm.HorNet', arch='tiny-gf'),
    'LESAResNet-DCN': dict(type='hybrid_mm.LESAResNet', deformable=(False, True, True, True)),
    'SAN-pairwise': dict(type='hybrid_mm.SAN', attention='pairwise'),
    'VAN-LSKA': dict(type='hybrid_mm.VAN', attention='lska', kernel_size=23),
}
"""Variants whose operators differ from those of the default of their family."""

BASE_MODELS = {
    'classifier': 'classifier',
    'Semantic FPN': 'fpn_r50',
    'UPerNet': 'upernet_r50',
    'RetinaNet': 'retinanet_r50_fpn',
    'FCOS': 'fcos_r50_fpn',
    'ATSS': 'atss_r50_fpn',
    'Mask R-CNN': 'mask-rcnn_r50_fpn',
    'Cascade Mask R-CNN': 'cascade-mask-rcnn_r50_fpn',
    'HTC': 'htc_r50_fpn',
    'Mask2Former': 'mask2former_r50_instance',
}
"""Base configs of models, in which a backbone replaces the ResNet."""


def families() -> dict[str, dict]:
    """Configs of networks by name: each registered class with its defaults, and ``VARIANTS``."""
    found = {
        name: dict(type=f'hybrid_mm.{name}')
        for name, cls in _registered().items()
        if inspect.isclass(cls) and getattr(cls, 'arch_zoo', None)
    }
    return dict(sorted((found | VARIANTS).items(), key=lambda item: item[0].lower()))


def build(config: dict) -> nn.Module:
    """A backbone of ours by its config. Unlike the registry this needs no mmcv."""
    arguments = copy.deepcopy(config)
    cls = _registered()[arguments.pop('type').rpartition('.')[2]]
    return cls(**arguments)


def _registered() -> Mapping[str, type]:
    """Classes of ours with their names, without the plugins of other networks, which need mmcv."""
    import_module(f'{OURS.scope}.backbones')
    return OURS.module_dict


def shortened(config: dict) -> dict:
    """The same network with one block per stage, or unchanged if that cannot be built."""
    cls = _registered()[config['type'].rpartition('.')[2]]
    default = inspect.signature(cls.__init__).parameters.get('arch')
    arch = config.get('arch', default.default if default else None)
    if not isinstance(arch, str):
        return config
    arch = cls.resolve_arch(arch).to_dict()
    for key, value in arch.items():
        if key.endswith('depths') and isinstance(value, list | tuple):
            arch[key] = [min(depth, 1) for depth in value]
    short = dict(config, arch=arch)
    try:
        build(short)
    except (ValueError, TypeError):  # it has settings per block
        return config
    return short


def smallest(config: dict) -> dict:
    """The same network in the variant that has the fewest parameters, unless it names one."""
    if 'arch' in config:
        return config
    cls = _registered()[config['type'].rpartition('.')[2]]

    def parameters(arch: str) -> int:
        with torch.device('meta'):
            return sum(p.numel() for p in build(dict(config, arch=arch)).parameters())

    return dict(config, arch=min(cls.arch_zoo, key=parameters))


def model_with(backbone: dict, head: str) -> nn.Module:
    """A classifier, segmenter or detector with random weights around a backbone.

    Args:
        backbone: Config of the backbone.
        head: One of ``BASE_MODELS``.

    Raises:
        UserError: The base configs are not installed.
    """
    base = installed_configs() / '_base_' / 'models' / f'{BASE_MODELS[head]}.py'
    model = Config.fromfile(base).model
    model.backbone = ConfigDict(copy.deepcopy(backbone))
    channels = list(build(backbone).out_channels)
    model.pop('auxiliary_head', None)
    if 'in_channels' in (model.get('neck') or {}):
        model.neck.in_channels = channels
    elif 'decode_head' in model:
        model.decode_head.update(in_channels=channels, in_index=list(range(len(channels))))
    elif 'panoptic_head' in model:
        model.panoptic_head.in_channels = channels
    else:
        model.head.in_channels = channels[-1]
    classifies = model.type == 'ImageClassifier'
    scope = 'mmpretrain' if classifies else 'mmseg' if 'decode_head' in model else 'mmdet'
    __import__(f'{scope}.models')
    model['_scope_'] = scope
    return MODELS.build(model)
