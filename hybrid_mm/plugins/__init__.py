"""Attention modules for ResNets: as ``plugins=``, after stages, or instead of 3x3 convolutions."""

from hybrid_mm.plugins.acmix_conv import ACmix
from hybrid_mm.plugins.attention_resnet import AttentionResNet
from hybrid_mm.plugins.bam import BAM
from hybrid_mm.plugins.cbam import CBAM
from hybrid_mm.plugins.coordinate import CoordinateAttention
from hybrid_mm.plugins.eca import ECA
from hybrid_mm.plugins.gather_excite import GatherExcite
from hybrid_mm.plugins.global_context import ContextBlock, NonLocal2d, SimplifiedNonLocal
from hybrid_mm.plugins.lambda_layer import LambdaLayer
from hybrid_mm.plugins.sasa_conv import SASAConv2d
from hybrid_mm.plugins.sasa_stem import SASAStem
from hybrid_mm.plugins.selective_kernel import SelectiveKernel
from hybrid_mm.plugins.squeeze_excite import SE
from hybrid_mm.plugins.triplet import TripletAttention

__all__ = [
    'BAM',
    'CBAM',
    'ECA',
    'SE',
    'ACmix',
    'AttentionResNet',
    'ContextBlock',
    'CoordinateAttention',
    'GatherExcite',
    'LambdaLayer',
    'NonLocal2d',
    'SASAConv2d',
    'SASAStem',
    'SelectiveKernel',
    'SimplifiedNonLocal',
    'TripletAttention',
]
