"""ACmix in the place of a convolution, and the ResNet with it, by their official arguments."""

import itertools
import re

from torch import Tensor, nn

from hybrid_mm.backbones import ACmixResNet
from hybrid_mm.convert import convert
from hybrid_mm.layers.acmix import ACmix2d
from mappings.common import Config, convert_part, load


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    model = ACmix2d(
        config.take('in_planes'),
        config.take('out_planes'),
        config.take('kernel_att', default=7),
        config.take('head', default=4),
        config.take('kernel_conv', default=3),
        config.take('stride', default=1),
        config.take('dilation', default=1),
    )
    config.done()
    part = convert_part(weights, 'layer1.0.conv2.', 'stages.0.blocks.0.conv2.', 'acmix-resnet')
    return load(model, part)


def _resnet(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    layers, base = config.take('layers'), config.take('width_per_group', default=64)
    stages = config.take('num_stages', default=len(layers))
    config.ignore(zero_init_residual=..., num_classes=..., groups=(1,))
    planes = list(itertools.islice((64, 128, 256, 512), stages))
    model = ACmixResNet(
        dict(
            stem=64,
            bottleneck=True,
            depths=layers[:stages],
            widths=[width * base // 64 for width in planes],
            out_channels=[4 * width for width in planes],
        ),
        kernel_att=config.take('k_att', default=7),
        heads=config.take('head', default=4),
        kernel_conv=config.take('k_conv', default=3),
        strides=(1, 2, 2, 2)[:stages],
        dilations=(1,) * stages,
        out_indices=tuple(range(stages)),
    )
    config.done()
    weights = {key: value for key, value in weights.items() if not re.match(r'fc\.', key)}
    return load(model, convert(weights, 'acmix-resnet'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('ResNet'):
        return _resnet(config, weights)
    if module == 'ACmix':
        return _operator(config, weights)
    raise ValueError(f'unknown module {module!r}')
