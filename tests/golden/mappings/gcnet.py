"""GCNet's code (on MMDetection 1.x) and the non-local block of MMCV."""

from mmcv.cnn import ContextBlock, NonLocal2d
from torch import Tensor, nn

from hybrid_mm.convert import convert, detect
from hybrid_mm.openmmlab.plugin_resnet import PluginResNet, PluginResNeXt
from mappings.common import Config, load


def _context(config: Config) -> dict:
    """Arguments of the block, which keep their names but for the channels."""
    found = {k: config.take(k) for k in ('ratio', 'pooling_type', 'fusion_types')}
    return {k: v for k, v in found.items() if v is not None}


def _stages(config: Config, name: str, count: int) -> tuple[bool, ...]:
    return tuple(config.take(name, default=(False,) * count))[:count]


def _deformable(dcn: Config) -> dict:
    out = dict(
        type='DCNv2' if dcn.take('modulated', default=False) else 'DCN',
        deform_groups=dcn.take('deformable_groups', 'deform_groups', default=1),
        fallback_on_stride=dcn.take('fallback_on_stride', default=False),
    )
    dcn.ignore(type=('DCN', 'DCNv2'))
    dcn.done()
    return out


def _network(config: Config, weights: dict[str, Tensor], groups: int) -> nn.Module:
    depth, count = config.take('depth'), config.take('num_stages', default=4)
    base = PluginResNet if groups == 1 else PluginResNeXt
    blocks = config.take('stage_blocks')
    if blocks is not None:  # the official class with its table overridden
        kind = base.arch_settings[depth][0]
        base = type(base.__name__, (base,), dict(arch_settings={depth: (kind, tuple(blocks))}))
    plugins, settings = [], {}
    gcb, gen = config.take('gcb'), config.take('gen_attention')
    flags = _stages(config, 'stage_with_gcb', count)
    if gcb is not None:
        gcb = Config(gcb)
        cfg = dict(type='ContextBlock', **_context(gcb))
        gcb.done()
        plugins.append(dict(cfg=cfg, stages=flags, position='after_conv3'))
    flags = config.take('stage_with_gen_attention', default=((),) * count)
    if gen is not None and any(flags):
        # here only some blocks of a stage have it, which MMDetection 3.x cannot say
        raise ValueError(f'cannot map gen_attention={gen!r}, stage_with_gen_attention={flags!r}')
    dcn, flags = config.take('dcn'), _stages(config, 'stage_with_dcn', count)
    if dcn is not None:
        settings |= dict(dcn=_deformable(Config(dcn)), stage_with_dcn=flags)
    if groups > 1:
        settings |= dict(groups=groups, base_width=config.take('base_width', default=4))
    width = config.take('base_channels', 'inplanes', default=64)
    for name, default in (
        ('strides', (1, 2, 2, 2)),
        ('dilations', (1, 1, 1, 1)),
        ('out_indices', (0, 1, 2, 3)),
        ('style', 'pytorch'),
        ('in_channels', 3),
    ):
        value = config.take(name, default=default)
        settings[name] = tuple(value) if isinstance(value, list) else value
    settings |= {k: settings[k][:count] for k in ('strides', 'dilations')}
    norm = config.take('norm_cfg', default=dict(type='BN'))
    if norm.get('type') not in ('BN', 'SyncBN') or set(norm) - {'type', 'requires_grad'}:
        raise ValueError(f'cannot map norm_cfg={norm!r}')
    config.ignore(
        frozen_stages=...,
        norm_eval=...,
        with_cp=...,
        zero_init_residual=...,
        conv_cfg=(None,),
        pretrained=...,
        init_cfg=(None,),
    )
    config.done()
    model = base(
        depth=depth,
        num_stages=count,
        base_channels=width,
        stem_channels=width,
        plugins=plugins or None,
        **settings,
    )
    if detect(weights) == 'gcnet-mmdet1':
        weights = convert(weights)
    return load(model, weights)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for an official one."""
    config = Config(config)
    if module in ('ResNet', 'ResNeXt'):
        groups = config.take('groups', default=1 if module == 'ResNet' else 32)
        return _network(config, weights, groups)
    if module == 'ContextBlock':
        model = ContextBlock(config.take('inplanes', 'in_channels'), **_context(config))
    elif module == 'NonLocal2d':
        names = ('reduction', 'use_scale', 'mode', 'sub_sample', 'norm_cfg')
        found = {k: config.take(k) for k in names if k in config}
        model = NonLocal2d(config.take('in_channels', 'inplanes'), **found)
        config.ignore(zeros_init=..., conv_cfg=(None, dict(type='Conv2d')))
    else:
        raise ValueError(f'unknown module {module!r}')
    config.done()
    return load(model, weights)
