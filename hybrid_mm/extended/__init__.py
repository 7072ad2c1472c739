"""Networks of the OpenMMLab packages with what the papers add to them.

They subclass those packages' classes, so that each is imported when a config names it, not before.
"""

from torch import nn

from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.registry import MODELS

# for the ``norm_cfg`` of necks and heads on maps: ``dict(type='hybrid_mm.LN2d', eps=1e-6)``
MODELS.register_module(name='LN2d', module=LayerNorm2d)


@MODELS.register_module(name='PluginResNet')
def plugin_resnet(**settings) -> nn.Module:
    """Build a :class:`hybrid_mm.extended.plugin_resnet.PluginResNet`."""
    from hybrid_mm.extended.plugin_resnet import PluginResNet

    return PluginResNet(**settings)


@MODELS.register_module(name='PluginResNeXt')
def plugin_resnext(**settings) -> nn.Module:
    """Build a :class:`hybrid_mm.extended.plugin_resnet.PluginResNeXt`."""
    from hybrid_mm.extended.plugin_resnet import PluginResNeXt

    return PluginResNeXt(**settings)


@MODELS.register_module(name='HorFPN')
def hor_fpn(*args, **settings) -> nn.Module:
    """Build a :class:`hybrid_mm.extended.horfpn.HorFPN`."""
    from hybrid_mm.extended.horfpn import HorFPN

    return HorFPN(*args, **settings)


@MODELS.register_module(name='HorUPerHead')
def hor_uper_head(**settings) -> nn.Module:
    """Build a :class:`hybrid_mm.extended.horfpn.HorUPerHead`."""
    from hybrid_mm.extended.horfpn import HorUPerHead

    return HorUPerHead(**settings)


@MODELS.register_module(name='InstanceTTAModel')
def instance_tta_model(**settings) -> nn.Module:
    """Build a :class:`hybrid_mm.extended.instance_tta.InstanceTTAModel`."""
    from hybrid_mm.extended.instance_tta import InstanceTTAModel

    return InstanceTTAModel(**settings)
