"""Backbones, registered in ``hybrid_mm.registry.MODELS``."""

from hybrid_mm.backbones.aa_resnet import AAResNet
from hybrid_mm.backbones.acmix_resnet import ACmixResNet
from hybrid_mm.backbones.acmix_swin import ACmixSwin
from hybrid_mm.backbones.botnet import BoTNet
from hybrid_mm.backbones.coatnet import CoAtNet
from hybrid_mm.backbones.cvt import CvT
from hybrid_mm.backbones.elsa_swin import ELSASwin
from hybrid_mm.backbones.evolving_resnet import EAAAResNet
from hybrid_mm.backbones.frames.base import BaseBackbone
from hybrid_mm.backbones.frames.resnet import ResNet
from hybrid_mm.backbones.halonet import HaloNet
from hybrid_mm.backbones.hornet import HorNet
from hybrid_mm.backbones.lesa_resnet import LESAResNet
from hybrid_mm.backbones.levit import LeViT
from hybrid_mm.backbones.maxvit import MaxViT
from hybrid_mm.backbones.mvitv2 import MViTv2
from hybrid_mm.backbones.nat import NAT, DiNAT, DiNATs
from hybrid_mm.backbones.pelk import PeLK
from hybrid_mm.backbones.pvt import PVT
from hybrid_mm.backbones.qna_vit import QnAViT
from hybrid_mm.backbones.quadratic_attention_nets import (
    QuadraticAttentionEncoder,
    QuadraticAttentionResNet,
)
from hybrid_mm.backbones.replknet import RepLKNet
from hybrid_mm.backbones.san import SAN
from hybrid_mm.backbones.sasa_resnet import SASAResNet
from hybrid_mm.backbones.slak import SLaK
from hybrid_mm.backbones.van import VAN
from hybrid_mm.backbones.vit import ViT

__all__ = [
    'NAT',
    'PVT',
    'SAN',
    'VAN',
    'AAResNet',
    'ACmixResNet',
    'ACmixSwin',
    'BaseBackbone',
    'BoTNet',
    'CoAtNet',
    'CvT',
    'DiNAT',
    'DiNATs',
    'EAAAResNet',
    'ELSASwin',
    'HaloNet',
    'HorNet',
    'LESAResNet',
    'LeViT',
    'MViTv2',
    'MaxViT',
    'PeLK',
    'QnAViT',
    'QuadraticAttentionEncoder',
    'QuadraticAttentionResNet',
    'RepLKNet',
    'ResNet',
    'SASAResNet',
    'SLaK',
    'ViT',
]
