"""Backbones, registered in ``hybrid_mm.registry.MODELS``."""

from hybrid_mm.backbones.base import Pyramid
from hybrid_mm.backbones.resnet import ResNet
from hybrid_mm.backbones.van import VAN

__all__ = ['VAN', 'Pyramid', 'ResNet']
