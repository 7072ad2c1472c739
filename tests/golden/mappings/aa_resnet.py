"""Attention-augmented convolution and ResNet, in the names of the paper's formulas."""

from torch import Tensor, nn

from hybrid_mm.backbones.aa_resnet import AAResNet
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.convert import convert
from hybrid_mm.layers import AAConv2d
from mappings.common import Config, convert_part, load
from mappings.resnet import arch

_OPERATOR = 'layer1.0.conv2.', 'stages.0.blocks.0.conv2.'


class _Sized(AAResNet):
    """Table sizes given for every stage instead of by an image size."""

    def __init__(self, sizes: list, *args, **kwargs) -> None:
        self.sizes = [size and tuple(size) for size in sizes]
        super().__init__(*args, **kwargs)

    def table_size(self, slot: ConvSlot) -> tuple[int, int] | None:
        return self.sizes[slot.stage]


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    settings = arch(config, weights)
    stages = config.take('aa_per_stage')
    if stages is None:
        raise ValueError('cannot map a network without aa_per_stage')
    named = dict(sizes=[], kappa=[], upsilon=[], heads=[], augmented=[], attn_downsample=[])
    for stage, width in zip(stages, settings['widths'], strict=True):
        part = Config(stage or {})
        named['augmented'].append(stage is not None)
        named['kappa'].append(part.take('dk', default=0) / width)
        named['upsilon'].append(part.take('dv', default=0) / width)
        named['heads'].append(part.take('Nh', 'heads', default=1))
        size = part.take('size', 'shape')
        named['sizes'].append(size if part.take('relative', default=True) else None)
        named['attn_downsample'].append(part.take('attn_down', 'attn_downsample', default=False))
        part.ignore(k=(3,), bias=(False,))
        part.done()
    config.done()
    named = {key: value if key == 'sizes' else tuple(value) for key, value in named.items()}
    model = _Sized(arch=settings, min_key_dim=1, **named)
    return load(model, convert(weights, 'aa-resnet'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith(('AA-ResNet', 'AAResNet')):
        return _network(config, weights)
    if not module.startswith('AAConv2d'):
        raise ValueError(f'unknown module {module!r}')
    size = config.take('size', 'shape')
    if not config.take('relative', default=size is not None):
        size = None
    bias = config.take('bias', default='conv_out.bias' in weights)
    model = AAConv2d(
        config.take('cin', 'in_channels'),
        config.take('cout', 'out_channels'),
        config.take('k', 'kernel_size', default=3),
        key_channels=config.take('dk'),
        value_channels=config.take('dv'),
        heads=config.take('Nh', 'heads'),
        size=size and tuple(size),
        stride=config.take('stride', default=1),
        dilation=config.take('dilation', default=1),
        bias=bias,
        attn_downsample=config.take('attn_down', 'attn_downsample', default=False),
    )
    config.done()
    return load(model, convert_part(weights, *_OPERATOR, 'aa-resnet'))
