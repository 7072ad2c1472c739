"""timm's BottleneckAttn and networks with it; MHSA and BoTStack of distribuuuu."""

from torch import Tensor, nn

from hybrid_mm.backbones.botnet import BoTNet
from hybrid_mm.backbones.frames.blocks import Stage
from hybrid_mm.backbones.frames.hybrid_bottleneck import HybridBottleneck
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention
from mappings.byobnet import described, network, without_head
from mappings.common import Config, convert_part, load


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


class _Sized(BoTNet):
    """Tables of the sizes that the weights have, instead of those of an image."""

    def __init__(self, weights: dict[str, Tensor], *args, **kwargs) -> None:
        self.weights = weights
        super().__init__(*args, **kwargs)

    def table_size(self, slot: ConvSlot) -> tuple[int, int]:
        prefix = f'stages.{slot.stage}.{slot.block}.self_attn.pos_embed.'
        return tuple(
            (len(self.weights[f'{prefix}{axis}_rel']) + 1) // 2 for axis in ('height', 'width')
        )


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    if 'blocks' in config:
        arch, kwargs = described(config, weights, BoTNet)
        return load(_Sized(weights, arch, **kwargs), without_head(weights))
    arch, attention = network(config, weights, BoTNet)
    arch |= dict(
        heads=[attention.take('num_heads', 'heads', default=4)] * len(arch['depths']),
        dim_head=attention.take('dim_head'),
        qk_ratio=attention.take('qk_ratio', default=1.0),
        scale_pos_embed=attention.take('scale_pos_embed', default=False),
    )
    bias = attention.take('qkv_bias', default=any(k.endswith('qkv.bias') for k in weights))
    attention.ignore(feat_size=...)
    attention.done()
    indices = tuple(range(len(arch['depths'])))
    return load(_Sized(weights, arch, qkv_bias=bias, out_indices=indices), without_head(weights))


def _timm_operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    model = BottleneckAttention(
        config.take('dim'),
        _pair(config.take('feat_size')),
        config.take('dim_out'),
        config.take('stride', default=1),
        config.take('num_heads', default=4),
        config.take('dim_head'),
        config.take('qk_ratio', default=1.0),
        config.take('qkv_bias', default=False),
        config.take('scale_pos_embed', default=False),
    )
    config.done()
    part = 'stages.0.0.self_attn.', 'stages.0.blocks.0.conv2.'
    return load(model, convert_part(weights, *part, 'timm-byobnet'))


def _mhsa(config: Config, channels: int, size: tuple[int, int], stride: int = 1) -> nn.Module:
    """Attention of distribuuuu; without relative positions it has absolute ones."""
    heads = config.get('heads', 4)
    return BottleneckAttention(
        channels,
        size,
        heads * config.get('dim_v', 128),
        stride,
        heads,
        config.get('dim_qk', 128),
        position='relative' if config.get('rel_pos_emb', False) else 'absolute',
    )


_MHSA = dict.fromkeys(('heads', 'dim_qk', 'dim_v', 'rel_pos_emb'), ...)


def _stack(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    channels, out_channels = config.take('dim'), config.take('dim_out', default=2048)
    size, stride = _pair(config.take('fmap_size')), config.take('stride', default=1)
    if config.take('downsample', default=False):
        stride = 2
    width = out_channels // config.take('proj_factor', default=4)
    act = str(config.take('activation', default='relu')).lower()
    act = 'silu' if 'silu' in act else 'relu' if 'relu' in act else act
    blocks = []
    for index in range(config.take('num_layers', default=3)):
        step = stride if index == 0 else 1
        attention = _mhsa(config, width, size, step)
        slot = ConvSlot(0, index, width, attention.widths[-1], step, 1, 1)
        blocks.append(
            HybridBottleneck(
                channels, out_channels, slot, attention, dict(type='BN'), act, shortcut_act=True
            )
        )
        channels, size = out_channels, tuple(side // step for side in size)
    config.ignore(**_MHSA)
    config.done()
    return load(
        Stage(blocks),
        convert_part(weights, '7.', 'stages.3.', 'distribuuuu-botnet'),
    )


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'ByobNet':
        return _network(config, weights)
    if module == 'BottleneckAttn':
        return _timm_operator(config, weights)
    if module == 'BoTStack':
        return _stack(config, weights)
    if module != 'MHSA':
        raise ValueError(f'unknown module {module!r}')
    model = _mhsa(config, config.take('dim'), _pair(config.take('fmap_size')))
    config.ignore(**_MHSA)
    config.done()
    part = '7.net.0.net.3.', 'stages.3.blocks.0.conv2.'
    return load(model, convert_part(weights, *part, 'distribuuuu-botnet'))
