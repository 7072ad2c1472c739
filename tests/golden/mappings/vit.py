"""ViT and ViTDet by their official arguments."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones import ViT, vit
from hybrid_mm.backbones.vit import ViTBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.openmmlab.simple_fpn import SimpleFPN
from mappings.common import UNUSED, Config, load

_HEADS = {
    3: 'deit-t deit-tiny',
    6: 'deit-s deit-small dinov2-s dinov2-small',
    8: 's small',
    12: 'b base deit-b deit-base',
    16: 'l large h huge',
}


def _fixed(config: Config, **wanted) -> None:
    """Arguments that have no other value here."""
    for name, want in wanted.items():
        value = config.take(name, default=want)
        if value != want:
            raise ValueError(f'cannot map {name}={value!r}, only {want!r}')


def _settings(config: Config) -> tuple[int, int, int, dict]:
    """Channels, depth, heads, and the rest of what networks have in common."""
    _fixed(config, norm_eps=1e-6)
    config.ignore(drop_path_rate=..., rel_pos_zero_init=..., layout=..., out=...)
    return (
        config.take('embed_dim', default=768),
        config.take('depth', default=12),
        config.take('num_heads', default=12),
        dict(
            patch_size=config.take('patch_size', default=16),
            mlp_ratio=config.take('mlp_ratio', default=4.0),
            qkv_bias=config.take('qkv_bias', default=True),
            in_channels=config.take('in_chans', default=3),
            partial_patches='drop',
        ),
    )


class _Network(nn.Module):
    """Backbone, then what follows it."""

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(x))


@contextlib.contextmanager
def _timm_positions() -> Iterator[None]:
    """Absolute positions of smaller images as timm has them, with antialiasing."""

    def resize(position: Tensor, size: tuple, extra: int, mode: str, grid: tuple) -> Tensor:
        own, rest = position[:, :extra], position[:, extra:]
        rest = rest.transpose(1, 2).unflatten(2, grid)
        rest = F.interpolate(rest, size, mode=mode, antialias=True)
        return torch.cat([own, rest.flatten(2).transpose(1, 2)], 1)

    with mock.patch.object(vit, 'resize_position_embedding', resize):
        yield


class _Plain(nn.Module):
    """Maps after every block, and logits of what the head of timm pools."""

    def __init__(
        self, backbone: ViT, pool: str, fc_norm: bool, norm: bool, classes: int, dynamic: bool
    ) -> None:
        super().__init__()
        channels = backbone.stage_channels[-1]
        self.backbone, self.pool, self.dynamic = backbone, pool, dynamic
        self.norm = backbone.stages[-1].norm
        self.fc_norm = nn.LayerNorm(channels, 1e-6) if norm and fc_norm else nn.Identity()
        self.head = nn.Linear(channels, classes) if classes else nn.Identity()
        backbone.stages[-1].norm = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens = []
        hook = self.backbone.stages[-1].register_forward_hook(lambda *a: tokens.append(a[-1]))
        with _timm_positions() if self.dynamic else contextlib.nullcontext():
            maps = self.backbone(x)
        hook.remove()
        x = self.norm(tokens[0][0])  # of (tokens, size of the map)
        if self.pool:
            x = x[:, 0] if self.pool == 'token' else x[:, int(self.backbone.class_token) :].mean(1)
        return *maps, self.head(self.fc_norm(x))


def _plain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    channels, depth, heads, settings = _settings(config)
    weights = dict(weights)
    config.ignore(weight_init=..., fix_init=..., drop_rate=...)
    config.ignore(pos_drop_rate=..., patch_drop_rate=..., proj_drop_rate=..., attn_drop_rate=...)
    _fixed(config, reg_tokens=0, qk_norm=False, proj_bias=True, scale_attn_norm=False)
    _fixed(config, scale_mlp_norm=False, attn_drop=0.0)
    if config.take('dynamic_img_pad', default=False):
        settings['partial_patches'] = 'pad'
    pool, token = config.take('global_pool', default='token'), config.take('class_token')
    token = True if token is None else token
    if pool not in ('token', 'avg', ''):
        raise ValueError(f"cannot map global_pool={pool!r}, only 'token', 'avg' or ''")
    fc_norm, norm = config.take('fc_norm'), config.take('final_norm', default=True)
    fc_norm = pool == 'avg' if fc_norm is None else fc_norm
    size = config.take('img_size', default=224)
    model = ViT(
        dict(embed_dim=channels, heads=heads, depths=[1] * depth),
        pretrain_img_size=size,
        img_size=size,
        class_token=token,
        pre_norm=config.take('pre_norm', default=False),
        final_norm=norm and not fc_norm,
        layer_scale=config.take('init_values', default=None) or None,
        out_indices=range(depth),
        **settings,
    )
    classes = config.take('num_classes', default=1000)
    dynamic = config.take('dynamic_img_size', default=False)
    _positions(config, weights, model)
    config.done()
    own = {k: weights.pop(k) for k in list(weights) if k.startswith(('head.', 'fc_norm.'))}
    state = convert(weights, 'vit')
    model.load_strictly(state, 'the case')
    network = _Plain(model, pool, fc_norm, norm, classes, dynamic)
    for name in ('head', 'fc_norm'):
        part = {k.removeprefix(f'{name}.'): v for k, v in own.items() if k.startswith(f'{name}.')}
        load(getattr(network, name), part)
    return network


def _positions(config: Config, weights: dict[str, Tensor], model: ViT) -> None:
    """Put absolute positions in the place of none, and that of a class token that has none."""
    kind = config.take('pos_embed', default='learn')
    if kind not in ('learn', 'none', ''):
        raise ValueError(f"cannot map pos_embed={kind!r}, only 'learn', 'none' or ''")
    if kind != 'learn':
        weights['pos_embed'] = torch.zeros_like(model.stem.position)
    if config.take('no_embed_class', default=False) and kind == 'learn':
        weights['pos_embed'] = F.pad(weights['pos_embed'], (0, 0, 1, 0))


def _variant(name: str, weights: dict[str, Tensor]) -> dict[str, int]:
    """Sizes of one of MMPretrain's variants, of which only the heads cannot be read of weights."""
    heads = [n for n, names in _HEADS.items() if name.lower() in names.split()]
    if not heads:
        raise ValueError(f'cannot map arch={name!r}, only {" ".join(_HEADS.values())}')
    hidden, channels = weights['layers.0.ffn.layers.0.0.weight'].shape
    number = len({key.split('.')[1] for key in weights if key.startswith('layers.')})
    sizes = dict(embed_dims=channels, num_layers=number, feedforward_channels=hidden)
    return dict(sizes, num_heads=heads[0])


def _of_mmpretrain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """MMPretrain's network, whose sizes are of the absolute positions."""
    config.ignore(**UNUSED)
    arch = config.take('arch', default='base')
    if isinstance(arch, str):
        arch = _variant(arch, weights)
    arch = dict(arch)
    ratio = arch.pop('feedforward_channels', 4 * arch['embed_dims']) / arch['embed_dims']
    depth = arch['num_layers']
    out = config.take('out_indices', default=-1)
    _fixed(config, interpolate_mode='bicubic', norm_cfg=dict(type='LN', eps=1e-6))
    out_type = config.take('out_type', default='cls_token')
    if out_type == 'avg_featmap':
        raise ValueError("cannot map out_type='avg_featmap', only 'featmap' or 'cls_token'")
    model = ViT(
        arch,
        pretrain_img_size=config.take('img_size', default=224),
        out_indices=[i % depth for i in ((out,) if isinstance(out, int) else out)],
        mlp_ratio=ratio,
        final_norm=config.take('final_norm', default=True),
        out_type=out_type,
        **config,
    )
    state = {k: v for k, v in convert(weights, 'vit').items() if not k.startswith('head.')}
    model.load_strictly(state, 'the case')
    return model


def _vitdet(config: Config) -> ViT:
    channels, depth, heads, settings = _settings(config)
    config.ignore(pretrain_use_cls_token=(True, False))
    _fixed(config, use_abs_pos=True, use_act_checkpoint=False)
    windows = config.take('window_block_indexes', default=())
    size = config.take('window_size', default=0) or None
    return ViT(
        dict(embed_dim=channels, heads=heads, depths=[depth]),
        pretrain_img_size=config.take('pretrain_img_size', default=224),
        img_size=config.take('img_size', default=1024),
        window_size=size,
        global_blocks=[block for block in range(depth) if block not in windows],
        residual_blocks=config.take('residual_block_indexes', default=()),
        relative=config.take('use_rel_pos', default=False),
        class_token=False,
        out_indices=(0,),
        **settings,
    )


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'VisionTransformer' and 'arch' in config:
        return _of_mmpretrain(config, weights)
    if module == 'VisionTransformer':
        return _plain(config, weights)
    if module.startswith('SimpleFeaturePyramid'):
        _fixed(config, norm='LN', square_pad=0)
        top = config.take('top_block', default=None)
        scales = config.take('scale_factors', default=[4.0, 2.0, 1.0, 0.5])
        out_channels = config.take('out_channels', default=256)
        model = _vitdet(config)
        config.done()
        neck = SimpleFPN(model.out_channels, out_channels, scales, len(scales) + bool(top))
        state = convert({f'backbone.{k}': v for k, v in weights.items()}, 'vitdet-detectron2')
        parts = [
            {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
            for part in ('backbone.', 'neck.')
        ]
        model.load_strictly(parts[0], 'the case')
        return _Network(model, load(neck, parts[1]))
    if module == 'ViT':
        model = _vitdet(config)
        config.done()
        model.load_strictly(convert(weights, 'vit'), 'the case')
        return model
    if module != 'Block':
        raise ValueError(f'unknown module {module!r}')
    _fixed(config, norm_eps=1e-6)
    config.ignore(drop_path=..., layout=..., rel_pos_zero_init=...)
    channels, size = config.take('dim'), config.take('input_size', default=None)
    size = (size, size) if isinstance(size, int) else size
    window = config.take('window_size', default=0) or None
    attn = SelfAttention(
        channels,
        config.take('num_heads'),
        tuple(size) if config.take('use_rel_pos', default=False) else None,
        window,
        config.take('qkv_bias', default=True),
    )
    residual = config.take('use_residual_block', default=False)
    block = ViTBlock(attn, channels, config.take('mlp_ratio', default=4.0), 0.0, residual)
    config.done()
    state = convert({f'blocks.0.{k}': v for k, v in weights.items()}, 'vit')
    load(block, {k.removeprefix('blocks.0.'): v for k, v in state.items()})
    return _Map(block)


class _Map(nn.Module):
    """Block on maps (N, H, W, C)."""

    def __init__(self, block: ViTBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.flatten(1, 2), tuple(x.shape[1:3])).view(x.shape)
