"""Neighborhood attention, NAT, DiNAT and DiNAT_s by their official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import NAT, DiNATs
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from mappings.common import Classifier, Config, convert_part, load


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    config.ignore(attn_drop=..., proj_drop=...)
    model = NeighborhoodAttention2d(
        config.take('dim'),
        config.take('num_heads'),
        config.take('kernel_size'),
        config.take('dilation') or 1,
        relative_bias=config.take('bias', default=True),
        qkv_bias=config.take('qkv_bias', default=True),
        qk_scale=config.take('qk_scale'),
    )
    config.done()
    part = 'levels.0.blocks.0.attn.', 'stages.0.blocks.0.attn.'
    return load(model, convert_part(weights, *part, 'nat'))


def _common(config: Config, depths: list[int]) -> dict:
    config.ignore(drop_rate=..., attn_drop_rate=..., drop_path_rate=..., in_chans=(3,))
    stages = len(depths)
    return dict(
        kernel_size=config.take('kernel_size', default=7),
        dilations=config.take('dilations') or [[1]] * stages,
        qkv_bias=config.take('qkv_bias', default=True),
        out_indices=tuple(config.take('out_indices', default=range(stages))),
    )


def _nat(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    depths = config.take('depths')
    arch = dict(
        depths=depths,
        embed_dim=config.take('embed_dim'),
        heads=config.take('num_heads'),
        mlp_ratio=config.take('mlp_ratio', default=3.0),
        layer_scale=config.take('layer_scale'),
    )
    model = NAT(arch, **_common(config, depths))
    config.done()
    return load(model, convert(weights, 'nat'))


def _swin_like(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    depths = config.take('depths')
    arch = dict(depths=depths, embed_dim=config.take('embed_dim'), heads=config.take('num_heads'))
    config.ignore(patch_norm=(True,), patch_size=(4,), pretrain_img_size=...)
    ratio = config.take('mlp_ratio', default=4.0)
    model = DiNATs(arch, mlp_ratio=ratio, **_common(config, depths))
    config.done()
    return load(model, convert(weights, 'dinat_s'))


def _isotropic(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    config.ignore(img_size=..., drop_rate=..., attn_drop_rate=..., drop_path_rate=...)
    config.ignore(in_chans=(3,), patch_norm=(True,), qk_scale=(None,))
    classes = config.take('num_classes', default=1000)
    arch = dict(
        depths=[config.take('depth', default=12)],
        embed_dim=config.take('embed_dim', default=384),
        heads=[config.take('num_heads', default=12)],
    )
    model = DiNATs(
        arch,
        dilations=[[1, config.take('dilation', default=2)]],
        kernel_size=config.take('kernel_size', default=7),
        qkv_bias=config.take('qkv_bias', default=True),
        patch_size=config.take('patch_size', default=16),
        mlp_ratio=config.take('mlp_ratio', default=4.0),
        out_indices=(0,),
    )
    config.done()
    return Classifier(model, classes).load(convert(weights, 'nat-isotropic'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.endswith('NeighborhoodAttention2D'):
        return _operator(config, weights)
    if module in ('NAT', 'DiNAT'):
        return _nat(config, weights)
    if module in ('DiNAT_s', 'DiNATs'):
        return _swin_like(config, weights)
    if module == 'NATIsotropic':
        return _isotropic(config, weights)
    raise ValueError(f'unknown module {module!r}')
