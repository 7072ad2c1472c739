"""Evolving attention: chains of augmented convolutions, and EA-AA-ResNet."""

from torch import Tensor, nn

from hybrid_mm.backbones.evolving_resnet import EAAAResNet
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.convert import convert
from hybrid_mm.layers import EvolvingAAConv2d
from mappings.common import Config, convert_part, load

_SOURCE = 'tensorflow-ea-aa-resnet'
_OPERATOR = 'resnet_model/asconv_1_0_0/', 'stages.1.blocks.0.conv2.'


def _size(weights: dict[str, Tensor], scope: str) -> tuple[int, int] | None:
    """Rows and columns that the tables of a layer were made for."""
    tables = [weights.get(f'{scope}r_{axis}') for axis in ('height', 'width')]
    return None if tables[0] is None else tuple((len(table) + 1) // 2 for table in tables)


class _Chain(nn.Module):
    """Layers that feed each other; their outputs and the last logits."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        outs, logits = [], None
        for layer in self.layers:
            x, logits = layer(x, logits if layer.evolve else None)
            outs.append(x)
        return [*outs, logits]


def _chain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    filters, channels = config.take('filters'), config.take('cin')
    keys, values = (int(filters * config.take(ratio)) for ratio in 'kv')
    common = dict(
        key_channels=keys,
        value_channels=values,
        heads=config.take('Nh', 'num_heads'),
        alpha=config.take('alpha', default=1.0),
        beta=config.take('beta', default=0.5),
    )
    kernel, relative = config.take('kernel_size', default=3), config.take('relative', default=True)
    layers = []
    for i, (stride, down) in enumerate(config.take('layers_stride_downsample')):
        scope = f'b{i}/'
        part = {k.removeprefix(scope): v for k, v in weights.items() if k.startswith(scope)}
        layer = EvolvingAAConv2d(
            channels,
            filters,
            kernel,
            **common,
            stride=stride,
            attn_downsample=down,
            size=_size(weights, scope) if relative else None,
            evolves='conv2d_3/kernel' in part,
        )
        layers.append(load(layer, convert_part(part, *_OPERATOR, _SOURCE)))
        channels = filters
    config.done()
    return _Chain(layers)


class _Sized(EAAAResNet):
    """Table sizes given for every stage instead of by an image size."""

    def __init__(self, sizes: dict[int, tuple[int, int] | None], *args, **kwargs) -> None:
        self.sizes = sizes
        super().__init__(*args, **kwargs)

    def table_size(self, slot: ConvSlot) -> tuple[int, int] | None:
        return self.sizes[slot.stage]


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    filters, depths = config.take('num_filters'), config.take('block_sizes')
    widths = [filters * 2**stage for stage in range(len(depths))]
    # the published code decides by the widths
    wide = [stage for stage, width in enumerate(widths) if 4 * width >= 512]
    stages = config.take('attention_stages', default=wide)
    first = [stage for stage in wide if 4 * widths[stage] == 512]
    down = config.take('downsample_attention_stage', default=first)
    down = down if isinstance(down, list) else [down]
    relative = config.take('relative', default=True)
    sizes = {
        s: _size(weights, f'resnet_model/asconv_{s}_0_0/') if relative else None for s in stages
    }
    ratios = [config.take(ratio) for ratio in 'kv']
    kappa, upsilon = (tuple(int(w * ratio) / w for w in widths) for ratio in ratios)
    model = _Sized(
        sizes,
        dict(
            stem=filters,
            bottleneck=True,
            depths=depths,
            widths=widths,
            out_channels=[4 * width for width in widths],
        ),
        kappa,
        upsilon,
        config.take('Nh', 'num_heads'),
        alpha=config.take('alpha', default=1.0),
        beta=config.take('beta', default=0.5),
        max_tokens=None,
        strides=tuple(config.take('block_strides')),
        dilations=(1,) * len(depths),
        augmented=tuple(stage in stages for stage in range(len(depths))),
        attn_downsample=tuple(stage in down for stage in range(len(depths))),
        out_indices=tuple(range(len(depths))),
    )
    config.ignore(
        rel_table_size=('built for this input size',),
        bottleneck=(True,),
        kernel_size=(7,),
        conv_stride=(2,),
        first_pool_size=(3,),
        first_pool_stride=(2,),
        resnet_version=(1,),
    )
    config.done()
    return load(model, convert(weights, _SOURCE))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('resnet_model.Model'):
        return _network(config, weights)
    if module.startswith('asconv2d_fixed_padding'):
        return _chain(config, weights)
    raise ValueError(f'unknown module {module!r}')
