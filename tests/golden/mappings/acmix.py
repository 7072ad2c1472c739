"""ACmix in the place of a convolution and of window attention, and ResNet and Swin with it."""

import itertools
import re
from typing import Any

from torch import Tensor, nn

from hybrid_mm.backbones import ACmixResNet, ACmixSwin
from hybrid_mm.backbones.frames.swin import SwinBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from mappings.common import Classifier, Config, convert_part, load


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


class _Shifted(nn.Module):
    """Our operator rolls the map, which the official one gets rolled and gives rolled."""

    def __init__(self, attn: nn.Module, shift: int) -> None:
        super().__init__()
        self.attn, self.shift = attn, shift

    def forward(self, x: Tensor) -> Tensor:
        x = x.roll((self.shift, self.shift), (1, 2))
        return self.attn(x, self.shift).roll((-self.shift, -self.shift), (1, 2))


class _Tokens(nn.Module):
    """A block of tokens (N, H W, C)."""

    def __init__(self, block: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.block, self.size = block, size

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.unflatten(1, self.size)).flatten(1, 2)


class _Classifier(Classifier):
    """Maps without norm, and the logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.backbone.stages:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2))
        return *maps, self.head(stage.norm(x).mean((1, 2)))


def _settings(config: Config) -> dict[str, Any]:
    config.ignore(drop=..., drop_rate=..., attn_drop=..., attn_drop_rate=..., proj_drop=...)
    config.ignore(drop_path=..., drop_path_rate=..., use_checkpoint=..., patch_norm=(True,))
    config.ignore(ape=(False,), patch_size=(4,), input_resolution=...)
    return dict(qkv_bias=config.take('qkv_bias', default=True), qk_scale=config.take('qk_scale'))


def _window_attention(config: Config, weights: dict[str, Tensor]) -> tuple[nn.Module, int]:
    window = config.take('window_size')
    rows, columns = window if isinstance(window, list | tuple) else (window, window)
    if rows != columns:
        raise ValueError(f'cannot map a window of {rows} x {columns}')
    config.ignore(H=..., W=...)
    shift = config.take('shift_size_of_mask', 'shift_size', default=0)
    dim, heads = config.take('dim'), config.take('num_heads')
    attn = ACmixWindowAttention(dim, rows, heads, **_settings(config))
    config.done()
    official, ours = 'layers.0.blocks.0.attn.', 'stages.0.blocks.0.attn.'
    return load(attn, convert_part(weights, official, ours, 'acmix-swin')), shift


def _block(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    dim, size = config['dim'], config.take('input_resolution')
    window = config.setdefault('window_size', 7)
    ratio = config.take('mlp_ratio', default=4.0)
    if min(size) <= window:  # as the official block does
        config.update(window_size=min(size), shift_size=0)
    inner = {k.removeprefix('attn.'): v for k, v in weights.items() if k.startswith('attn.')}
    attn, shift = _window_attention(config, inner)
    block = SwinBlock(dim, attn, attn.window, shift, ratio)
    part = convert_part(weights, 'layers.0.blocks.0.', 'stages.0.blocks.0.', 'acmix-swin')
    return _Tokens(load(block, part), tuple(size))


def _swin(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    size, window = config.take('img_size', default=224), config.take('window_size', default=7)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    depths = config.take('depths', default=[2, 2, 6, 2])
    heads = config.take('num_heads', default=[3, 6, 12, 24])
    sides = [min(height, width) // 4 // 2**stage for stage in range(len(depths))]
    net = ACmixSwin(
        dict(embed_dim=config.take('embed_dim', default=96), depths=depths, heads=heads),
        window_size=[min(side, window) for side in sides],
        mlp_ratio=config.take('mlp_ratio', default=4.0),
        in_channels=config.take('in_chans', default=3),
        out_indices=(len(depths) - 1,),
        **_settings(config),
    )
    model = _Classifier(net, config.take('num_classes', default=1000))
    config.done()
    return model.load(convert(weights, 'acmix-swin'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('ResNet'):
        return _resnet(config, weights)
    if module.startswith('SwinTransformer_acmix'):
        return _swin(config, weights)
    if module == 'WindowAttention_acmix':
        return _Shifted(*_window_attention(config, weights))
    if module == 'SwinTransformerBlock':
        return _block(config, weights)
    if module == 'ACmix':
        return _operator(config, weights)
    raise ValueError(f'unknown module {module!r}')
