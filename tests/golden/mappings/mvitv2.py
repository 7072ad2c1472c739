"""MViTv2 by its official arguments."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from hybrid_mm.backbones import MViTv2
from hybrid_mm.backbones.mvitv2 import MultiScaleBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from mappings.common import UNUSED, Config, load


def _common(config: Config) -> dict:
    """What all modules have; the rest has no effect in eval mode or no other value here."""
    for name, want in (
        ('norm_eps', 1e-6),
        ('kernel', 3),
        ('pool_kernel', 3),
        ('use_abs_pos', False),
        ('abs_pos', False),
        ('cls_embed', False),
        ('separate_qkv', False),
        ('qkv_pool_kernel', 3),
    ):
        value = config.take(name, default=want)
        value = value[0] if isinstance(value, list) and len(set(value)) == 1 else value
        if value != want:
            raise ValueError(f'cannot map {name}={value!r}, only {want!r}')
    config.ignore(drop_path_rate=..., drop_path=..., rel_pos_zero_init=..., out=..., layout=...)
    return dict(
        mlp_ratio=config.take('mlp_ratio', default=4.0),
        qkv_bias=config.take('qkv_bias', default=True),
        relative=config.take('rel_pos', 'use_rel_pos', default=True),
        residual=config.take('residual_pooling', default=True),
    )


class _Outputs(nn.Module):
    """Maps and logits of a classifier: the maps of all stages but the last are not normalised."""

    def __init__(self, backbone: MViTv2, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        for stage in backbone.stages[:-1]:
            stage.norm = nn.Identity()
        self.head = nn.Linear(backbone.stage_channels[-1], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        return *maps, self.head(maps[-1].mean((2, 3)))


class _Tokens(nn.Module):
    """Block on tokens (N, H W, C) of maps of a fixed size."""

    def __init__(self, block: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.block, self.size = block, size

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.unflatten(1, self.size)).flatten(1, 2)


def _pair(value) -> int:
    """The number that both axes have."""
    if isinstance(value, list | tuple):
        if len(set(value)) != 1:
            raise ValueError(f'cannot map strides {value!r} that differ')
        value = value[0]
    return value


def _block(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    common = _common(config)
    channels, out_channels = config.take('dim'), config.take('dim_out')
    in_attention = config.take('dim_mul_in_att', default=True)
    size = config.take('input_size')
    size, stride = (
        tuple(size) if isinstance(size, list) else (size, size),
        _pair(config.take('stride_q', default=1)),
    )
    tokens = config.take('hw', default=None)
    attn = PoolingAttention(
        channels,
        out_channels if in_attention else channels,
        config.take('num_heads'),
        size,
        stride,
        _pair(config.take('stride_kv', default=1)),
        config.take('window_size', default=0) or None,
        common['qkv_bias'],
        common['relative'],
        common['residual'],
    )
    block = MultiScaleBlock(channels, attn, out_channels, stride, common['mlp_ratio'])
    config.done()
    # the converter finds stages by the widths: one before this block
    first = {'blocks.0.attn.qkv.weight': torch.zeros(3 * channels, channels)}
    state = {f'blocks.1.{key}': value for key, value in weights.items()}
    widens = in_attention and channels != out_channels
    prefix = f'stages.{int(widens)}.blocks.{1 - int(widens)}.'
    state = convert(first | state, 'mvitv2')
    load(block, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return block if tokens is None else _Tokens(block, tuple(tokens))


def _of_mmpretrain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """MMPretrain's classifier; of several maps, its first norms change those after them."""
    config.ignore(**UNUSED)
    arch = config.take('arch')
    arch = MViTv2.resolve_arch(arch).to_dict() if isinstance(arch, str) else dict(arch)
    if 'depths' not in arch:
        starts = [0, *arch.pop('downscale_indices'), arch.pop('num_layers')]
        arch['depths'] = [b - a for a, b in pairwise(starts)]
    out = config.take('out_scales', default=-1)
    last = len(arch['depths']) - 1
    if out not in (-1, last, [last], (last,)):
        raise ValueError(f'cannot map out_scales={out!r}, only the last')
    if 'pool_kernel' in config:
        config['pool_kernel'] = tuple(config['pool_kernel'])
    for name, want in (
        ('pool_kernel', (3, 3)),
        ('dim_mul', 2),
        ('head_mul', 2),
        ('use_abs_pos_embed', False),
        ('norm_cfg', dict(type='LN', eps=1e-6)),
        ('patch_cfg', dict(kernel_size=7, stride=4, padding=3)),
    ):
        if (value := config.take(name, default=want)) != want:
            raise ValueError(f'cannot map {name}={value!r}, only {want!r}')
    config.ignore(interpolate_mode=..., rel_pos_zero_init=...)
    options = dict(window_size=None, double_kv_stride=False, out_scales=(last,))
    return load(MViTv2(arch, **options, **config), convert(weights, 'mvitv2'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('MultiScaleBlock'):
        return _block(config, weights)
    if not module.startswith('MViT'):
        raise ValueError(f'unknown module {module!r}')
    if 'arch' in config:
        return _of_mmpretrain(config, weights)
    dense = 'detectron2' in module
    common = _common(config)
    depth = config.take('depth')
    if dense:
        starts = [0, *(i + 1 for i in config.take('last_block_indexes'))]
        if starts[-1] != depth:
            raise ValueError(f'cannot map last_block_indexes that do not end at {depth - 1}')
        common['window_size'] = config.take('adaptive_window_size', default=56) or None
    else:
        starts = [0, *config.take('scales'), depth]
        common['window_size'] = None
    in_attention = config.take('dim_mul_in_att', default=dense)
    model = MViTv2(
        dict(
            embed_dim=config.take('embed_dim'),
            heads=config.take('num_heads'),
            depths=[b - a for a, b in pairwise(starts)],
        ),
        img_size=config.take('img_size', default=224),
        kv_stride=config.take('adaptive_kv_stride', default=4),
        double_kv_stride=dense,
        dim_mul_in_att=in_attention,
        in_channels=config.take('in_chans', default=3),
        **common,
    )
    classes = config.take('num_classes', default=0)
    config.done()
    if dense:
        return load(model, convert(weights, 'mvitv2'))
    state = convert(weights, 'mvitv2')
    outputs = _Outputs(model, classes)
    return load(
        outputs, {k if k.startswith('head.') else f'backbone.{k}': v for k, v in state.items()}
    )
