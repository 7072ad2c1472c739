"""Backbones that are counted: the smallest detection variant of each paper."""

from collections.abc import Mapping
from typing import Any

IMAGES = (2, 3, 800, 1216)


def _net(type: str, arch: str, drop_path_rate: float = 0.1, **arguments: Any) -> dict[str, Any]:
    """Config of a backbone; rates of drop path as in the recipes, all above 0 cost the same."""
    config = dict(type=f'hybrid_mm.{type}', arch=arch, **arguments)
    return config | (dict(drop_path_rate=drop_path_rate) if drop_path_rate else {})


NETWORKS: Mapping[str, dict[str, Any]] = {
    'PeLK-T': _net('PeLK', 'tiny'),
    'SASA-R50': _net('SASAResNet', 'r50', 0),
    'ACmix-Swin-T': _net('ACmixSwin', 'tiny'),
    'AA-R50': _net('AAResNet', 'r50', 0),
    'SAN10-ACmix': _net('SAN', 'san10', 0, acmix=True),
    'DiNAT-mini': _net('DiNAT', 'mini'),
    'NAT-mini': _net('NAT', 'mini'),
    'HorNet-T-gf': _net('HorNet', 'tiny-gf'),
    'PVT-T-ACmix': _net('PVT', 'tiny', acmix=True),
    'ELSA-Swin-T': _net('ELSASwin', 'tiny'),
    'LESA-R50': _net('LESAResNet', 'r50', 0),
    'SAN10 pairwise': _net('SAN', 'san10', 0, attention='pairwise'),
    'DiNATs-T': _net('DiNATs', 'tiny'),
    'R26-ACmix': _net('ACmixResNet', 'r26', 0),
    'CoAtNet-0-rw': _net('CoAtNet', '0-rw'),
    'SAN10 patchwise': _net('SAN', 'san10', 0),
    'QnA-T': _net('QnAViT', 'tiny'),
    'LeViT-128s': _net('LeViT', '128s', 0),
    'Quadratic-R50': _net('QuadraticAttentionResNet', 'r50', 0),
    'BoT50': _net('BoTNet', 'bot50', 0),
    'HorNet-T': _net('HorNet', 'tiny'),
    'MaxViT-T': _net('MaxViT', 'tiny'),
    'EA-AA-R50': _net('EAAAResNet', 'r50', 0),
    'CvT-13': _net('CvT', '13'),
    'R50-Halo8': _net('HaloNet', 'r50-se-b8', 0),
    'MViTv2-T': _net('MViTv2', 'tiny'),
    'VAN-LSKA-T': _net('VAN', 'tiny', attention='lska', kernel_size=35),
    'ViTDet-B': _net('ViT', 'base', window_size=14, relative=True, class_token=False),
    'SLaK-T': _net('SLaK', 'tiny'),
    'PVT-T': _net('PVT', 'tiny'),
    'RepLKNet-31B': _net('RepLKNet', '31b'),
}
