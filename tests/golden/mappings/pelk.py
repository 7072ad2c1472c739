"""PeLK by the arguments of the literal evaluation of its equations."""

from torch import Tensor, nn

from hybrid_mm.backbones import PeLK
from hybrid_mm.backbones.frames.convnext import ConvNeXtBlock
from hybrid_mm.backbones.pelk import PartialPeripheralConv2d
from hybrid_mm.convert import convert
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d
from mappings.common import Config, convert_part, load
from mappings.slak import PART, OnMaps


def _embedding(config: Config, present: bool) -> str:
    mode = config.take('pos_embed', 'pos_embed_mode', 'kpe', default=present)
    return mode if isinstance(mode, str) else ('bias' if mode else 'none')


def _center(config: Config, default: int = 2) -> int:
    size = config.take('center_size', 'center')
    radius = config.take('center_radius', 'rc', default=default)
    return size or 2 * radius + 1


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    embed = weights.get('pos_embed')
    channels, size = config.take('channels', 'dim'), config.take('kernel_size', 'K')
    model = PeripheralConv2d(
        channels,
        size,
        _center(config),
        config.take('grid'),
        _embedding(config, embed is not None),
        pos_embed_per_channel=embed is not None and len(embed) > 1,
    )
    config.done()
    return load(model, weights)


def _block(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    weights = dict(weights)
    embed = weights.pop('pos_embed', None)
    channels, ratio = config.take('dim'), config.take('ratio', default=3 / 8)
    mixer = PartialPeripheralConv2d(
        channels,
        config.take('g', default=int(ratio * channels)),
        config.take('kernel_size', 'K'),
        config.take('small_kernel', default=5),
        dict(type='BN'),
        center_size=_center(config),
        grid=config.take('grid'),
        pos_embed=_embedding(config, embed is not None),
    )
    config.done()
    scale = 1.0 if 'gamma' in weights else 0.0
    model = ConvNeXtBlock(mixer, channels, 0.0, scale)
    return OnMaps(load(model, convert_part(weights, *PART, 'slak')), embed)


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    embeds = [v for k, v in weights.items() if k.startswith('pos_embeds.')]
    model = PeLK(
        dict(depths=config.take('depths'), dims=config.take('dims')),
        config.take('Ks', 'kernel_sizes', 'kernel_size'),
        _center(config),
        config.take('grids'),
        config.take('small_kernel', default=5),
        config.take('ratio', 'partial_ratio', default=3 / 8),
        _embedding(config, bool(embeds)),
        pos_embed_per_channel=any(len(e) > 1 for e in embeds),
        width_factor=config.take('wf', 'width_factor', default=1.3),
    )
    config.done()
    return load(model, convert(weights, 'slak'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    makers = {'PeripheralConv2d': _operator, 'PeLKBlock': _block, 'PeLK': _network}
    name = module.split()[0]
    if name not in makers:
        raise ValueError(f'unknown module {module!r}')
    return makers[name](config, weights)
