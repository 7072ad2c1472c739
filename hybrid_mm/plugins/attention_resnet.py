"""Stock ResNets with modules in places that their ``plugins=`` does not offer.

``plugins=`` inserts modules after a convolution of a block. Other modules replace the 3x3
convolution (selective kernels, lambda layers) or the stem, or are placed after a stage (BAM) or
before its last block (one non-local block). A stage of these ResNets is an ``nn.Sequential`` of
blocks, which hold their layers by name, so the built network can be changed: no class of
MMDetection, MMSegmentation or MMPretrain is subclassed or changed, and all other names in a
checkpoint stay the same.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT
from torch import nn

from hybrid_mm.registry import MODELS

_POSITIONS = ('after_stage', 'before_last_block')


@MODELS.register_module()
def AttentionResNet(
    base: str = 'ResNet',
    conv2: dict | Sequence[dict] | None = None,
    stage_plugins: dict | Sequence[dict] | None = None,
    stem: dict | None = None,
    **kwargs: Any,
) -> BaseModule:
    """Build a stock ResNet and insert modules.

    Args:
        base: A ResNet of bottlenecks: 'ResNet', 'ResNeXt', 'ResNetV1c', ... of the library in use,
            or one with its scope, such as 'mmdet.ResNet'.
        conv2: Operators that replace the 3x3 convolutions, one dict or several, each with

            - ``cfg``: type and arguments of a :class:`~hybrid_mm.plugins.base.SpatialOperator` or
              of any layer that can be a ``conv_cfg``; it gets the norm_cfg of the network if it has
              that argument and ``cfg`` does not set it;
            - ``stages``: one bool for each stage, by default all;
            - ``blocks``: indices of blocks within those stages, -1 the last; by default all;
            - ``norm``: whether to keep the norm after it; by default if the operator has none.
        stage_plugins: Modules in a stage, one dict or several, each with

            - ``cfg``: type and arguments of a plugin, optionally ``postfix`` for its name;
            - ``stages``: one bool for each stage, by default all;
            - ``position``: 'after_stage' (default) or 'before_last_block'.

            Their names in a checkpoint are ``layer1.bam.`` and so on.
        stem: Type and arguments of a module from the image to a map at stride 4 in place of
            convolution, norm, ReLU and pooling, such as 'hybrid_mm.SASAStem'. It is called with
            the channels of both, and gets the norm_cfg of the network if it has that argument and
            ``stem`` does not set it. Its name in a checkpoint is ``stem``, as of deep stems.
        **kwargs: Arguments of the ResNet.

    Returns:
        The ResNet, an instance of the stock class.

    Raises:
        KeyError: Unknown type.
        ValueError: Unknown keys or stages, a network without bottlenecks, or two modules in one
            place.

    Example:
        >>> from hybrid_mm.plugins import AttentionResNet
        >>> net = AttentionResNet(
        ...     'mmdet.ResNet',
        ...     conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')),
        ...     depth=50,
        ... )
    """
    net = _get(base)(**kwargs)
    stages = [getattr(net, name) for name in net.res_layers]
    if stem is not None:
        _replace_stem(net, stem, stages[0][0].conv1.in_channels)
    for entry in _entries('conv2', conv2, {'cfg', 'stages', 'blocks', 'norm'}):
        for stage in _chosen(entry, stages):
            for index in entry.get('blocks', range(len(stage))):
                _replace_conv2(stage[index], entry['cfg'], entry.get('norm'), net.norm_cfg)
    for entry in _entries('stage_plugins', stage_plugins, {'cfg', 'stages', 'position'}):
        for stage in _chosen(entry, stages):
            _insert(stage, entry['cfg'], entry.get('position', 'after_stage'))
    net._freeze_stages()
    return net


def _get(name: str) -> type:
    """Class by its name in a config, looked up in the scope of the library in use, as in mmcv."""
    if not isinstance(name, str):
        return name
    with ROOT.switch_scope_and_registry(None) as registry:
        found = registry.get(name)
    if found is None:
        raise KeyError(f'{name!r} is not registered: give its scope, as in mmdet.ResNet')
    return found


def _entries(name: str, value: dict | Sequence[dict] | None, keys: set[str]) -> list[dict]:
    entries = [value] if isinstance(value, dict) else list(value or ())
    for entry in entries:
        if 'cfg' not in entry or set(entry) - keys:
            raise ValueError(f'{name}: keys {sorted(keys)} with cfg expected, got {sorted(entry)}')
    return entries


def _chosen(entry: dict, stages: list[nn.Sequential]) -> list[nn.Sequential]:
    chosen = entry.get('stages') or (True,) * len(stages)
    if len(chosen) != len(stages):
        raise ValueError(f'stages: one bool for each of {len(stages)} stages, got {chosen}')
    return [stage for stage, wanted in zip(stages, chosen, strict=True) if wanted]


def _replace_stem(net: BaseModule, cfg: dict, channels: int) -> None:
    cfg = dict(cfg)
    stem = _get(cfg.pop('type'))
    if 'norm_cfg' in inspect.signature(stem).parameters:
        cfg.setdefault('norm_cfg', net.norm_cfg)
    first = net.stem[0] if net.deep_stem else net.conv1
    if not net.deep_stem:
        for name in ('conv1', net.norm1_name, 'relu'):
            del net._modules[name]
    # the stock class runs and freezes `stem` in place of its layers where this is set
    net.deep_stem, net.stem = True, stem(first.in_channels, channels, **cfg)
    net.maxpool = nn.Identity()


def _replace_conv2(block: nn.Module, cfg: dict, norm: bool | None, norm_cfg: dict) -> None:
    conv = block.conv2
    if not hasattr(block, 'conv3') or type(conv) is not nn.Conv2d:
        raise ValueError(
            'conv2 needs bottlenecks (depth 50, 101 or 152) with a plain 3x3 convolution: '
            f'no dcn, and one entry a block; got {type(block).__name__} with {type(conv).__name__}'
        )
    cfg = dict(cfg)
    operator = _get(cfg.pop('type'))
    if 'norm_cfg' in inspect.signature(operator).parameters:
        cfg.setdefault('norm_cfg', norm_cfg)
    block.conv2 = operator(
        conv.in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size[0],
        stride=conv.stride[0],
        padding=conv.padding[0],
        dilation=conv.dilation[0],
        groups=conv.groups,
        bias=False,
        **cfg,
    )
    if getattr(operator, 'replaces_norm', False) if norm is None else not norm:
        block.add_module(block.norm2_name, nn.Identity())


def _insert(stage: nn.Sequential, cfg: dict, position: str) -> None:
    if position not in _POSITIONS:
        raise ValueError(f'position must be one of {", ".join(_POSITIONS)}, got {position!r}')
    cfg = dict(cfg)
    plugin, postfix = _get(cfg.pop('type')), cfg.pop('postfix', '')
    name = f'{plugin._abbr_}{postfix}'
    if name in stage._modules:
        raise ValueError(f'{name} occurs twice in a stage: give one of them a postfix')
    last = next(key for key in reversed(stage._modules) if key.isdecimal())
    block = stage._modules[last]
    channels = getattr(block, 'conv3', block.conv2).out_channels
    stage.add_module(name, plugin(in_channels=channels, **cfg))
    if position == 'before_last_block':
        # a Sequential runs in the order of its modules; the blocks keep their numbers
        for key in list(stage._modules)[list(stage._modules).index(last) :]:
            if key != name:
                stage._modules[key] = stage._modules.pop(key)
