"""ViT and ViTDet by their official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import ViT
from hybrid_mm.backbones.vit import ViTBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.openmmlab.simple_fpn import SimpleFPN
from mappings.common import Config, load


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


class _Plain(nn.Module):
    """Maps after every block, and logits of the class token after the norm."""

    def __init__(self, backbone: ViT, classes: int) -> None:
        super().__init__()
        self.backbone, self.norm = backbone, backbone.stages[-1].norm
        self.head = nn.Linear(backbone.stage_channels[-1], classes)
        backbone.stages[-1].norm = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens = []
        hook = self.backbone.stages[-1].register_forward_hook(lambda *a: tokens.append(a[-1]))
        maps = self.backbone(x)
        hook.remove()
        return *maps, self.head(self.norm(tokens[0][0][:, 0]))  # of (tokens, size of the map)


def _plain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    channels, depth, heads, settings = _settings(config)
    _fixed(config, class_token=True, global_pool='token', pre_norm=False)
    size = config.take('img_size', default=224)
    arch = dict(embed_dim=channels, heads=heads, depths=[1] * depth)
    model = ViT(
        arch,
        pretrain_img_size=size,
        img_size=size,
        final_norm=True,
        layer_scale=config.take('init_values', default=None),
        out_indices=range(depth),
        **settings,
    )
    classes = config.take('num_classes', default=1000)
    config.done()
    state = convert(weights, 'vit')
    head = {key: state.pop(key) for key in list(state) if key.startswith('head.')}
    model.load_strictly(state, 'the case')
    network = _Plain(model, classes)
    network.head.load_state_dict({k.removeprefix('head.'): v for k, v in head.items()})
    return network


def _of_mmpretrain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """MMPretrain's network, whose sizes are of the absolute positions."""
    arch = dict(config.take('arch'))
    ratio = arch.pop('feedforward_channels', 4 * arch['embed_dims']) / arch['embed_dims']
    depth = arch['num_layers']
    out = config.take('out_indices', default=-1)
    _fixed(config, interpolate_mode='bicubic', pre_norm=False, norm_cfg=dict(type='LN', eps=1e-6))
    model = ViT(
        arch,
        pretrain_img_size=config.take('img_size', default=224),
        out_indices=[i % depth for i in ((out,) if isinstance(out, int) else out)],
        mlp_ratio=ratio,
        final_norm=config.take('final_norm', default=True),
        out_type=config.take('out_type', default='cls_token'),
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
