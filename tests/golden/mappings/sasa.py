"""Local self-attention, attention stem and ResNet on both, in the names of the paper's formulas."""

from torch import Tensor, nn

from hybrid_mm.backbones.sasa_resnet import SASAResNet
from hybrid_mm.convert import convert
from hybrid_mm.layers import AttentionStem, LocalSelfAttention2d
from mappings.common import Config, convert_part, load
from mappings.resnet import arch

_OPERATOR = 'layer1.0.conv2.', 'stages.0.blocks.0.conv2.'


def _border(config: Config) -> str:
    return 'mask' if config.take('mask', 'mask_padding', default=False) else 'zero'


def _scale(config: Config, dim: int) -> float:
    """A number, or whether to divide by sqrt(d)."""
    scale = config.take('scale')
    if scale is None or scale is False:
        return 1.0
    return dim**-0.5 if scale is True else float(scale)


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    settings = arch(config, weights)
    attn_stem = config.take('attn_stem', default='stem.attn.emb_row' in weights)
    kwargs = {}
    if attn_stem:
        mix = weights['stem.attn.emb_mix']
        kwargs['stem_heads'] = config.take('stem_heads', default=settings['stem'] // mix.shape[1])
        kwargs['stem_mixtures'] = config.take('m', 'stem_m', default=mix.shape[0])
    heads = config.take('heads')
    widths = settings['widths']
    heads = tuple(heads) if isinstance(heads, list | tuple) else (heads,) * len(widths)
    scale = config.take('scale')
    model = SASAResNet(
        settings,
        'attention' if attn_stem else 'conv',
        kernel_size=config.take('k', 'kernel_size'),
        heads=heads,
        share_rel=config.take('share_rel', default=True),
        border=_border(config),
        scale=tuple(
            _scale(Config(scale=scale), width // max(n, 1))
            for width, n in zip(widths, heads, strict=True)
        ),
        **kwargs,
    )
    config.done()
    plain = not any('query_conv' in key for key in weights)
    return load(model, convert(weights, 'torchvision-resnet' if plain else 'sasa-resnet'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith(('SASA-ResNet', 'SASAResNet')):
        return _network(config, weights)
    channels = config.take('cin', 'in_channels'), config.take('cout', 'out_channels')
    kernel, heads = config.take('k', 'kernel_size'), config.take('heads')
    part = _OPERATOR
    if module.startswith('LocalSelfAttention2d'):
        model = LocalSelfAttention2d(
            *channels,
            kernel,
            heads,
            stride=config.take('stride', default=1),
            dilation=config.take('dilation', default=1),
            share_rel=config.take('share_rel', default=True),
            border=_border(config),
            scale=_scale(config, channels[1] // heads),
        )
    elif module.startswith('AttentionStem'):
        model = AttentionStem(*channels, kernel, heads, config.take('m', default=4))
        part = 'stem.attn.', 'stem.attn.'
    else:
        raise ValueError(f'unknown module {module!r}')
    config.done()
    return load(model, convert_part(weights, *part, 'sasa-resnet'))
