"""timm's HaloAttn and networks with it."""

from torch import Tensor, nn

from hybrid_mm.backbones.halonet import HaloNet
from hybrid_mm.layers import HaloAttention
from mappings.byobnet import described, network, without_head
from mappings.common import Config, convert_part, load

_OPERATOR = 'stages.0.0.self_attn.', 'stages.0.blocks.0.conv2.'


def _flags(config: Config, weights: dict[str, Tensor]) -> dict:
    return dict(
        qkv_bias=config.take('qkv_bias', default=any(key.endswith('kv.bias') for key in weights)),
        avg_down=config.take('avg_down', default=False),
        scale_pos_embed=config.take('scale_pos_embed', default=False),
    )


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    if 'blocks' in config:
        arch, kwargs = described(config, weights, HaloNet)
        return load(HaloNet(arch, **kwargs), without_head(weights))
    arch, attention = network(config, weights, HaloNet)
    arch |= dict(
        block_size=attention.take('block_size', default=8),
        halo_size=attention.take('halo_size', default=3),
        heads=[attention.take('num_heads', 'heads', default=8)] * len(arch['depths']),
        dim_head=attention.take('dim_head'),
        qk_ratio=attention.take('qk_ratio', default=1.0),
    )
    flags = _flags(attention, weights)
    attention.done()
    model = HaloNet(arch, out_indices=tuple(range(len(arch['depths']))), **flags)
    return load(model, without_head(weights))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'ByobNet':
        return _network(config, weights)
    if module != 'HaloAttn':
        raise ValueError(f'unknown module {module!r}')
    model = HaloAttention(
        config.take('dim'),
        config.take('dim_out'),
        config.take('stride', default=1),
        config.take('num_heads', default=8),
        config.take('dim_head'),
        config.take('block_size', default=8),
        config.take('halo_size', default=3),
        config.take('qk_ratio', default=1.0),
        **_flags(config, weights),
    )
    config.ignore(feat_size=...)
    config.done()
    return load(model, convert_part(weights, *_OPERATOR, 'timm-byobnet'))
