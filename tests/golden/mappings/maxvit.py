"""MaxViT and CoAtNet by timm's arguments."""

import ast
import copy
import re
from typing import Any

from torch import Tensor, nn

from hybrid_mm.backbones import CoAtNet, MaxViT
from hybrid_mm.backbones.coatnet import RelativeTransformerBlock
from hybrid_mm.backbones.maxvit import PartitionBlock
from hybrid_mm.convert import convert
from hybrid_mm.convert.maxxvit import queries_first
from hybrid_mm.layers.convolution.mbconv import MBConv
from hybrid_mm.layers.norm import LayerNorm2d
from mappings.common import Config, convert_part, load

RELATIVE = {'bias': 'table', 'bias_tf': 'table', 'mlp': 'log'}
STRIDES = {'dw': 'conv', '1x1': 'expansion', 'pool': 'pool'}
POOLS = {'avg': 'avg3', 'avg2': 'avg2', 'max': 'max3', 'max2': 'max2'}


class Classifier(nn.Module):
    """Stem, stages and logits: all that the cases hold."""

    def __init__(self, backbone: nn.Module, head: nn.Sequential, norm_first: bool) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.norm, self.norm_first = head.norm, norm_first

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.backbone.stem(x)]
        for stage in self.backbone.stages:
            maps.append(stage(maps[-1]))
        x = maps[-1] if self.norm_first else maps[-1].mean((2, 3), keepdim=True)
        x = self.norm(x).mean((2, 3))
        if hasattr(self.head, 'pre_logits'):
            x = self.head.pre_logits(x).tanh()
        return [*maps, self.head.fc(x)]


def _dict(text: Any) -> dict:
    """Arguments of a dict, or of the text of a call such as 'MaxxVitConvCfg(padding="same")'."""
    if not isinstance(text, str):
        return dict(text or {})
    call = ast.parse(text, mode='eval').body
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


def _conv(config: Config, base: dict, norm: dict) -> tuple[dict, dict]:
    """Arguments of MBConv and of its norms by those of timm's MbConvBlock."""
    conv, norm = copy.deepcopy(base), dict(norm)
    padding = config.take('padding', default=None)
    if padding is not None:
        conv['padding'] = 'same' if padding.startswith('same') else 'symmetric'
    if 'expand_output' in config:
        conv['expand_from'] = 'output' if config.take('expand_output') else 'input'
    if 'stride_mode' in config:
        mode = config.take('stride_mode')
        if mode not in STRIDES:
            raise ValueError(f'cannot map stride_mode={mode!r}')
        conv['stride_in'] = STRIDES[mode]
    if 'pool_type' in config:
        conv['pool'] = _pool(config)
    if conv['padding'] == 'same' and conv.get('pool') in ('avg3', 'max3'):
        raise ValueError(f"cannot map padding='same' with pool_type={conv['pool'][:-1]!r}")
    config.ignore(downsample_pool_type=('avg2',) if conv.get('stride_in') == 'pool' else ...)
    names = {
        'expansion': ('expand_ratio',),
        'act': ('act', 'act_layer'),
        'pre_act': ('pre_norm_act',),
        'gate_ratio': ('se_ratio', 'attn_ratio'),
        'gate_act': ('se_act', 'attn_act_layer'),
        'gate_early': ('attn_early',),
        'bias': ('output_bias',),
    }
    for ours, theirs in names.items():
        value = config.take(*theirs)
        if value is not None:
            conv[ours] = value
    norm['eps'] = config.take('norm_eps', default=norm['eps'])
    config.ignore(
        block_type=('mbconv',),
        kernel_size=(3,),
        group_size=(1,),
        attn_layer=('se',),
        norm_layer=('batchnorm2d',),
        norm_layer_cl=...,
        init_values=...,
    )
    return conv, norm


def _pool(config: Config) -> str:
    """How a map is halved."""
    kind = config.take('pool_type', 'pool', default='avg2')
    if kind not in POOLS:
        raise ValueError(f'cannot map pool_type={kind!r}')
    return POOLS[kind]


def _attention(
    config: Config, weights: dict[str, Tensor], default: str = 'bias', whole: bool = False
) -> tuple[dict, dict[str, Tensor]]:
    """Arguments of attention, and the weights in the order of rows that their tables have.

    ``default`` are the relative positions where the config has none. timm asks for the order in
    windows alone: attention to a whole map has the head first whatever the config says.
    """
    relative = config.take('rel_pos', 'rel_pos_type', default=default)
    if relative not in RELATIVE:
        raise ValueError(f'cannot map rel_pos={relative!r}')
    head_first = config.take('head_first', default=True) or whole
    width = config.take('dim_head', default=32)
    channels = config.take('rel_pos_dim', default=512)
    config.ignore(
        expand_ratio=(4, 4.0),
        attn_bias=(True,),
        norm_layer=...,
        norm_layer_cl=...,
        partition_ratio=...,
        no_block_attn=(False,),
        use_nchw_attn=(False,),
        attn_drop=...,
        proj_drop=...,
    )
    if head_first == (relative == 'bias_tf'):
        weights = dict(weights)
        for key in [k for k in weights if '.qkv.' in f'.{k}']:
            heads = len(weights[key]) // 3 // width
            if head_first:
                weights[key] = queries_first(weights[key], heads)
            else:
                value = weights[key].unflatten(0, (3, heads, -1)).transpose(0, 1)
                weights[key] = value.flatten(0, 2)
    kinds = dict(relative=RELATIVE[relative], relative_channels=channels)
    return dict(kinds, head_width=width), weights


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _variant(name: str, family: str) -> str:
    """Ours for timm's 'maxvit_rmlp_tiny_rw_256' or 'coatnet_0_rw', in which the image may be."""
    name = name.removeprefix(f'{family}_').removesuffix('_tf')
    return re.sub(r'_\d{3}$', '', name).removesuffix('_tf').replace('_', '-')


def _head(channels: int, hidden: int | None, eps: float, classes: int) -> nn.Sequential:
    head = nn.Sequential()
    head.norm = LayerNorm2d(channels, eps)
    if hidden:
        head.pre_logits = nn.Linear(channels, hidden)
    head.fc = nn.Linear(hidden or channels, classes)
    return head


def _network(cls: type, source: str, config: Config, weights: dict[str, Tensor]) -> nn.Module:
    variant = config.take('variant', default='').partition(':')[0]
    name = _variant(variant, source) or ('tiny' if cls is MaxViT else '0')
    arch = cls.resolve_arch(name).to_dict()
    nested = _dict(config.take('transformer', 'transformer_cfg'))
    config = Config({**config, **nested})
    default = 'mlp' if arch['attention'].get('relative') == 'log' else 'bias'
    if variant.endswith('_tf'):
        default = 'bias_tf'
        config.setdefault('head_first', False)
    config.setdefault('rel_pos_dim', arch['attention'].get('relative_channels', 512))
    attention, weights = _attention(config, weights, default, cls is CoAtNet)
    conv = Config(_dict(config.take('conv', 'conv_cfg')))
    if cls is MaxViT and not variant:  # timm's defaults; those of the official table are others
        arch |= dict(conv=dict(act='gelu', padding='symmetric'), approximate='none', ln_eps=1e-6)
        arch['norm'] = dict(arch['norm'], eps=1e-5)
    arch['conv'], arch['norm'] = _conv(conv, arch['conv'], arch['norm'])
    conv.done()
    arch['depths'] = list(config.take('depths', default=arch['depths']))
    arch['channels'] = list(config.take('embed_dim', default=arch['channels']))
    arch['stem'] = dict(
        channels=_pair(config.take('stem_width', default=arch['stem']['channels'])),
        bias=config.take('stem_bias', default=arch['stem']['bias']),
    )
    arch['ln_eps'] = config.take('norm_eps', default=arch['ln_eps'])
    size = _pair(config.take('img_size', default=224))
    act = config.take('act', 'act_layer', default='gelu' if cls is CoAtNet else None)
    kwargs = dict(head_width=attention['head_width'])
    if cls is MaxViT:
        arch['attention'] = dict(
            relative=attention['relative'],
            relative_channels=attention['relative_channels'],
            layer_scale=config.take('init_values', default=arch['attention'].get('layer_scale')),
        )
        config.ignore(pool_type=..., pool=...)  # maps are halved by the convolutions
        act = act or ('gelu_tanh' if arch['approximate'] == 'tanh' else 'gelu')
        arch['approximate'] = {'gelu_tanh': 'tanh', 'gelu': 'none'}[act]
        ratio = tuple(side // 32 for side in size)
        kwargs['window_size'] = _pair(config.take('window_size', default=None) or ratio)
        kwargs['grid_size'] = _pair(config.take('grid_size', default=None) or ratio)
        config.ignore(block_type=(['M'] * len(arch['depths']), 'M'))
        config.ignore(expand_first=...)  # all have as many channels as their input
    else:
        if act != 'gelu':
            raise ValueError(f'cannot map act={act!r}')
        config.ignore(window_size=..., grid_size=...)  # there are none
        arch['kinds'] = list(config.take('block_type', default=arch['kinds']))
        arch['attention']['relative'] = attention['relative']
        arch['attention']['relative_channels'] = attention['relative_channels']
        if 'pool_type' in config or 'pool' in config:
            arch['attention']['pool'] = _pool(config)
        for ours, theirs in (
            ('expand_first',) * 2,
            ('shortcut_bias',) * 2,
            ('layer_scale', 'init_values'),
        ):
            value = config.take(theirs, default=arch['attention'].get(ours))
            if value is not None:
                arch['attention'][ours] = value
        kwargs['img_size'] = size
    channels = arch['channels'][-1]
    hidden = config.take('head_hidden_size', default=None)
    head = _head(channels, hidden, arch['ln_eps'], config.take('num_classes', default=1000))
    config.ignore(shortcut_bias=..., drop_path_rate=..., weight_init=...)
    config.done()
    model = Classifier(cls(arch, **kwargs), head, norm_first='norm.weight' in weights)
    state = convert(weights, source)
    last = f'stages.{len(arch["depths"]) - 1}.norm.'
    own = {k.replace(last, 'head.norm.'): v for k, v in state.items() if k.startswith(last)}
    own |= {
        k if 'pre_logits' in k else k.replace('head.', 'head.fc.'): v
        for k, v in state.items()
        if k.startswith('head.')
    }
    rest = {k: v for k, v in state.items() if not k.startswith((last, 'head.'))}
    load(model.head, {k.removeprefix('head.'): v for k, v in own.items()})
    load(model.backbone, rest)
    return model


def _load_part(model: nn.Module, weights: dict[str, Tensor], *names: str) -> nn.Module:
    return load(model, convert_part(weights, *names))


def _mbconv(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    channels = config.take('in_chs'), config.take('out_chs')
    stride = config.take('stride', default=1)
    base = dict(act='gelu', padding='symmetric')
    conv, norm = _conv(config, base, dict(eps=1e-5))
    config.ignore(drop_path=...)
    config.done()
    model = MBConv(*channels, stride, norm=lambda c: nn.BatchNorm2d(c, **norm), **conv)
    return _load_part(model, weights, *['stages.0.blocks.0.'] * 2, 'coatnet')


def _partition(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    attention, weights = _attention(config, weights)
    kind = config.take('partition_type', default='block')
    sizes = {k: _pair(config.take(f'{n}_size')) for k, n in (('block', 'window'), ('grid', 'grid'))}
    act = config.take('act', 'act_layer', default='gelu')
    model = PartitionBlock(
        config.take('dim'),
        sizes[kind],
        attention['head_width'],
        kind,
        {'gelu_tanh': 'tanh', 'gelu': 'none'}[act],
        config.take('norm_eps', default=1e-6),
        relative=attention['relative'],
        relative_channels=attention['relative_channels'],
        layer_scale=config.take('init_values', default=None),
    )
    config.ignore(layout=('B,H,W,C',), drop_path=..., expand_first=..., pool_type=..., pool=...)
    config.done()
    names = f'stages.0.blocks.0.attn_{kind}.', f'stages.0.blocks.0.{kind}.'
    return _load_part(model, weights, *names, 'maxvit')


def _transformer(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    attention, weights = _attention(config, weights, whole=True)
    channels = config.take('dim')
    act = config.take('act', 'act_layer', default='gelu')
    if act != 'gelu':
        raise ValueError(f'cannot map act={act!r}')
    model = RelativeTransformerBlock(
        channels,
        config.take('dim_out', default=channels),
        config.take('stride', default=1),
        _pair(config.take('feat_size')),
        expand_first=config.take('expand_first', default=True),
        shortcut_bias=config.take('shortcut_bias', default=True),
        layer_scale=config.take('init_values', default=None),
        ln_eps=config.take('norm_eps', default=1e-6),
        pool=_pool(config),
        **attention,
    )
    config.ignore(drop_path=...)
    config.done()
    return _load_part(model, weights, *['stages.0.blocks.0.'] * 2, 'coatnet')


def build(module: str, config: dict, weights: dict[str, Tensor], family: str = 'maxvit'):
    """Make our module for a reference one."""
    config = Config(config)
    parts = dict(
        MbConvBlock=_mbconv, PartitionAttentionCl=_partition, TransformerBlock2d=_transformer
    )
    kind = module.split()[0]
    if kind in parts:
        return parts[kind](config, weights)
    if kind == 'MaxxVit':
        return _network(MaxViT if family == 'maxvit' else CoAtNet, family, config, weights)
    raise ValueError(f'unknown module {module!r}')
