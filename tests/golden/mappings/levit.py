"""LeViT by its official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import LeViT
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from mappings.common import UNUSED, Config, convert_part, load


class _Tokens(nn.Module):
    """Attention on tokens (N, L, C) of a square map; (N, C, H, W) of the convolutional flavour."""

    def __init__(self, attn: nn.Module, side: int) -> None:
        super().__init__()
        self.attn, self.side = attn, side

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.attn(x.unflatten(1, (self.side, self.side))).flatten(1, 2)


class _Head(nn.Module):
    """Batch norm and linear layer."""

    def __init__(self, channels: int, classes: int, distillation: bool) -> None:
        super().__init__()
        self.bn, self.linear = nn.BatchNorm1d(channels), nn.Linear(channels, classes)
        self.dist = _Head(channels, classes, False) if distillation else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.bn(x))
        return y if self.dist is None else (y + self.dist(x)) / 2


class _MapsAndLogits(nn.Module):
    """Maps of the attention stages, and logits."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        return *maps, self.head(maps[-1].mean((2, 3)))


def _per_stage(value, number: int) -> list:
    return list(value) if isinstance(value, list | tuple) else [value] * number


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    config.ignore(drop_path=..., drop_path_rate=..., patch_size=(16,), hybrid_backbone=(None,))
    config.ignore(act=('Hardswish',), layout=('B,N,C', 'B,C,H,W'))
    config.ignore(attention_activation=('Hardswish',), mlp_activation=('Hardswish',))
    config.ignore(in_chans=(3,))
    widths = config.take('embed_dim')
    number = len(widths)
    keys = _per_stage(config.take('key_dim'), number)
    ratios = _per_stage(config.take('attn_ratio', default=2), number)
    mlp = _per_stage(config.take('mlp_ratio', default=2), number)
    down = config.take('down_ops', default=None)
    if down is None:
        down = [['Subsample', keys[0], width // keys[0], 4, 2, 2] for width in widths[:-1]]
    down = [op for op in down if op and op[0] != '']
    if len(down) != number - 1 or any(op[0] != 'Subsample' or op[5] != 2 for op in down):
        raise ValueError(f'cannot map down_ops={down!r}')
    arch = dict(
        embed_dims=widths,
        key_dims=keys,
        heads=config.take('num_heads'),
        depths=config.take('depth'),
        mlp_ratios=mlp,
        value_ratios=ratios,
        shrink_key_dims=[None, *(op[1] for op in down)],
        shrink_heads=[None, *(op[2] for op in down)],
        shrink_value_ratios=[None, *(op[3] for op in down)],
        shrink_mlp_ratios=[None, *(op[4] for op in down)],
    )
    indices = tuple(range(2, 2 + number))
    model = LeViT(arch, img_size=config.take('img_size', default=224), out_indices=indices)
    classes = config.take('num_classes', default=1000)
    distillation = config.take('distillation', default=True)
    config.done()
    state = convert(weights, 'levit')
    head = {k[5:]: v for k, v in state.items() if k.startswith('head.')}
    load(model, {k: v for k, v in state.items() if not k.startswith('head.')})
    if not head:
        return model
    return _MapsAndLogits(model, load(_Head(widths[-1], classes, distillation), head))


def _of_mmpretrain(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """MMPretrain's network, whose stages are those with attention."""
    config.ignore(**UNUSED)
    config.ignore(patch_size=(16,), act_cfg=(dict(type='HSwish'),), deploy=(False,))
    arch = config.take('arch')
    if not isinstance(arch, str):
        sizes = dict(arch)
        keys, widths = sizes['key_dims'], sizes['embed_dims']
        number = len(widths)
        arch = dict(
            sizes,
            mlp_ratios=[2] * number,
            value_ratios=[2] * number,
            shrink_heads=[None, *(w // k for w, k in zip(widths, keys[1:], strict=False))],
            shrink_key_dims=[None, *keys[1:]],
            shrink_value_ratios=[None] + [4] * (number - 1),
            shrink_mlp_ratios=[None] + [2] * (number - 1),
        )
    arch = LeViT.resolve_arch(arch).to_dict()
    number = len(arch['depths'])
    mlp = config.take('mlp_ratio', default=2)
    arch['mlp_ratios'], arch['shrink_mlp_ratios'] = [mlp] * number, [None] + [mlp] * (number - 1)
    arch['value_ratios'] = [config.take('attn_ratio', default=2)] * number
    out = config.take('out_indices', default=-1)
    model = LeViT(
        arch,
        img_size=config.take('img_size', default=224),
        out_indices=[2 + i % number for i in ([out] if isinstance(out, int) else out)],
    )
    config.done()
    return load(model, convert(weights, 'levit-mmpretrain'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('LeViT') and 'arch' in config:
        return _of_mmpretrain(config, weights)
    if module.startswith('LeViT'):
        return _network(config, weights)
    if module not in ('Attention', 'AttentionSubsample'):
        raise ValueError(f'unknown module {module!r}')
    config.ignore(act=('Hardswish',), activation=('Hardswish',), layout=('B,N,C', 'B,C,H,W'))
    shrink = module == 'AttentionSubsample'
    channels = config.take('in_dim' if shrink else 'dim')
    side, key_dim = config.take('resolution', default=14), config.take('key_dim')
    stride = config.take('stride', default=2) if shrink else 1
    smaller = config.take('resolution_', default=-(-side // stride))
    if smaller != -(-side // stride):
        raise ValueError(f'cannot map resolution_={smaller} with {side} and stride {stride}')
    attn = LeViTAttention(
        channels,
        config.take('out_dim') if shrink else channels,
        key_dim,
        config.take('num_heads', default=8),
        config.take('attn_ratio', default=2 if shrink else 4),
        side,
        stride,
    )
    config.done()
    # in a network, a shrinking attention comes after another one
    official, ours = ('blocks.0.', 'stages.3.downsample.attn.')
    if not shrink:
        official, ours = 'blocks.0.m.', 'stages.2.blocks.0.attn.'
    return _Tokens(load(attn, convert_part(weights, official, ours, 'levit')), side)
