"""Backbones, registered in ``hybrid_mm.registry.MODELS``."""

from hybrid_mm.backbones.aa_resnet import AAResNet
from hybrid_mm.backbones.base import Pyramid
from hybrid_mm.backbones.botnet import BoTNet
from hybrid_mm.backbones.halonet import HaloNet
from hybrid_mm.backbones.lesa import LESAResNet
from hybrid_mm.backbones.quadratic_attention import (
    QuadraticAttentionEncoder,
    QuadraticAttentionResNet,
)
from hybrid_mm.backbones.resnet import ResNet
from hybrid_mm.backbones.sasa import SASAResNet
from hybrid_mm.backbones.van import VAN

__all__ = [
    'VAN',
    'AAResNet',
    'BoTNet',
    'HaloNet',
    'LESAResNet',
    'Pyramid',
    'QuadraticAttentionEncoder',
    'QuadraticAttentionResNet',
    'ResNet',
    'SASAResNet',
]
