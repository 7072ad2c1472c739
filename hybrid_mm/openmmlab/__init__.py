"""Necks, heads and backbones that extend classes of MMDetection, MMSegmentation and MMPretrain.

They need those packages, so each is imported only when a config names it.
"""

from collections.abc import Callable
from importlib import import_module

from torch import nn

from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.openmmlab import simple_fpn as _  # noqa: F401  registers itself, needs torch only
from hybrid_mm.registry import MODELS

# for the ``norm_cfg`` of necks and heads on maps: ``dict(type='hybrid_mm.LN2d', eps=1e-6)``
MODELS.register_module(name='LN2d', module=LayerNorm2d)


def _register_lazily(file: str, name: str) -> None:
    """Register a class of a file in this folder; the file is imported at the first build."""

    def build(*args, **kwargs) -> nn.Module:
        cls: Callable[..., nn.Module] = getattr(import_module(f'{__name__}.{file}'), name)
        return cls(*args, **kwargs)

    build.__name__ = name
    build.__doc__ = f'Build a :class:`{__name__}.{file}.{name}`.'
    MODELS.register_module(name=name, module=build)


_register_lazily('plugin_resnet', 'PluginResNet')
_register_lazily('plugin_resnet', 'PluginResNeXt')
_register_lazily('hor_fpn', 'HorFPN')
_register_lazily('hor_fpn', 'HorUPerHead')
_register_lazily('instance_tta', 'InstanceTTAModel')
_register_lazily('detection_preprocessor', 'MultichannelDetDataPreprocessor')
_register_lazily('onnx_model', 'OnnxModel')
_register_lazily('sasa_retina_head', 'SASARetinaHead')
_register_lazily('segmentation_tta', 'SegmentationTTAModel')
_register_lazily('segmentation_preprocessor', 'MultichannelSegDataPreProcessor')
