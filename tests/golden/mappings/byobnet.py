"""timm's ByobNet, its config in words or in timm's fields: what HaloNet and BoTNet share."""

import re
from typing import Any

from torch import Tensor

from hybrid_mm.backbones.frames.bottleneck_net import BottleneckNet
from hybrid_mm.convert import convert
from mappings.common import Config

_VALUE = r'\([^)]*\)|\[[^\]]*\]|[\w.]+'


def value(text: str) -> Any:
    """'(1,2)' to [1, 2], '0.25' to 0.25, 'True' to True; other words stay."""
    text = text.strip()
    if text[0] in '([':
        return [value(item) for item in text[1:-1].split(',') if item.strip()]
    words = {'True': True, 'False': False, 'None': None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Text:
    """A config told in words, of which every word must be used."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text, self.rest = name, text, text

    def take(self, pattern: str) -> list[re.Match]:
        """All matches; they count as used."""
        found = list(re.finditer(pattern, self.rest))
        self.rest = re.sub(pattern, ' ', self.rest)
        return found

    def pairs(self) -> Config:
        """All ``name=value``."""
        return Config({m[1]: value(m[2]) for m in self.take(rf'(\w+)\s*=\s*({_VALUE})')})

    def done(self) -> None:
        """Raise ValueError if words are left."""
        words = re.findall(r'[^\s,;()]*\w[^\s,;()]*', self.rest)
        if words:
            left = ' '.join(words)
            raise ValueError(f'cannot map {self.name}={self.text!r}: do not know {left!r}')


def _types(weights: dict[str, Tensor], depths: list[int]) -> list[list[str]]:
    """Kind of each block, by its weights."""
    return [
        [
            'bottle' if f'stages.{s}.{b}.conv2_kxk.conv.weight' in weights else 'self_attn'
            for b in range(depth)
        ]
        for s, depth in enumerate(depths)
    ]


def _stages(text: Text, weights: dict[str, Tensor]) -> dict:
    told = []  # (stages, kinds of their blocks or one for all)
    for match in text.take(r'stage (\d+)\s*=\s*(\[[^\]]*\]|all \w+)'):
        kinds = match[2][4:] if match[2].startswith('all ') else value(match[2])
        told.append(([int(match[1])], kinds))
    pairs = text.pairs()
    depths = pairs.take('d')
    count = len(depths)
    told += [([count - 1], m[1]) for m in text.take(r'only the last stage is (\w+)')]
    told += [(range(count), m[1]) for m in text.take(r'\ball (bottle|self_attn)\b')]
    types = _types(weights, depths)
    for stages, kinds in told:
        for s in stages:
            want = [kinds] * depths[s] if isinstance(kinds, str) else kinds
            if want != types[s]:
                raise ValueError(
                    f'stages={text.text!r} but stage {s} has the weights of {types[s]}'
                )
    ratio = pairs.take('br')
    settings = dict(
        depths=depths,
        channels=pairs.take('c'),
        strides=pairs.take('stride', 's'),
        ratios=ratio if isinstance(ratio, list) else [ratio] * count,
        attention=[
            tuple(b for b, kind in enumerate(kinds) if kind == 'self_attn') for kinds in types
        ],
    )
    groups = pairs.take('gs', 'group_size')
    if groups is not None:
        settings['group_size'] = groups
    pairs.ignore(every=...)  # the weights tell which blocks attend
    pairs.done()
    text.done()
    return settings


def _stem(text: Text) -> dict:
    (kind,) = text.take(r'tiered|\d+x\d+')
    (channels,) = text.take(r'stem_chs\s*=\s*(\d+)|(\d+) ch\b') or [None]
    if channels is None:
        raise ValueError(f'cannot map stem={text.text!r} without channels')
    no_pool = text.take(r"no (?:max)?pool\w*|(?:stem_)?pool\s*=?\s*''|without \w*pool\w*")
    pool = text.take(r'max\s?pool')
    text.take(r'stride 2|\([\d, ]*\)')
    text.done()
    return dict(
        kind=kind[0], channels=int(channels[1] or channels[2]), pool=bool(pool and not no_pool)
    )


def described(
    config: Config, weights: dict[str, Tensor], cls: type[BottleneckNet]
) -> tuple[dict, dict]:
    """A config with timm's ``blocks``: our ``arch``, and the arguments of our network."""
    # of a network: of its classifier, of an image, of initial values
    config.ignore(num_classes=..., in_chans=(3,), img_size=..., zero_init_last=..., drop_rate=...)
    config.ignore(fixed_input_size=..., drop_path_rate=..., global_pool=..., output_stride=(32,))
    arch, attention = dict(config), dict(config.get('self_attn_kwargs') or {})
    kwargs = {name: attention.pop(name, False) for name in cls.byob_attention.arguments}
    attention.pop('feat_size', None)  # the tables tell it
    kwargs['final_conv'] = any(key.startswith('final_conv.') for key in weights)
    kwargs['out_indices'] = tuple(range(len(config['blocks'])))
    return {**arch, 'self_attn_kwargs': attention}, kwargs


def without_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the maps, converted."""
    state = {key: value for key, value in weights.items() if not key.startswith('head.')}
    return convert(state, 'timm-byobnet')


def network(
    config: Config, weights: dict[str, Tensor], cls: type[BottleneckNet]
) -> tuple[dict, Config]:
    """Arch of ours, and the arguments of the attention that are not yet used."""
    base = str(config.take('base', default='')).lower()
    known = [name for name in cls.arch_zoo if name in base]
    arch = {}
    if known:
        arch = cls.resolve_arch(max(known, key=len)).to_dict()
        arch = {k: arch[k] for k in ('act', 'linear_out', 'bottle_in', 'gate', 'shortcut')}
    arch |= _stages(Text('stages', config.take('stages')), weights)
    arch['stem'] = _stem(Text('stem', config.take('stem')))
    arch['group_size'] = arch.get('group_size', _group_size(weights))
    for name in ('act', 'linear_out', 'bottle_in'):
        if name in config:
            arch[name] = config.take(name)
    if 'downsample' in config:
        kind = config.take('downsample')
        if kind not in ('conv1x1', '', None):
            raise ValueError(f'cannot map downsample={kind!r}')
        arch['shortcut'] = bool(kind)
    arch['gate'] = _gate(config, weights, arch.get('gate') or {})

    kwargs = config.take('self_attn_kwargs', default={})
    described = config.take('self_attn', 'self_attn_layer', default='')
    text = Text('self_attn', described)
    attention = Config({**text.pairs(), **kwargs})
    text.take(r'\b(halo|bottleneck)\b|\(default\)')
    text.done()
    config.done()
    return arch, attention


def _group_size(weights: dict[str, Tensor]) -> int:
    shapes = [w.shape for key, w in weights.items() if key.endswith('conv2_kxk.conv.weight')]
    sizes = {inside for out, inside, *_ in shapes if out != inside}
    if len(sizes) > 1:
        raise ValueError(f'cannot map groups of {sorted(sizes)} channels in one network')
    return sizes.pop() if sizes else 0


def _gate(config: Config, weights: dict[str, Tensor], base: dict) -> dict | None:
    layer, kwargs = config.take('attn_layer'), Config(config.take('attn_kwargs', default={}))
    hidden = [key for key in weights if key.endswith('.attn.fc1.weight')]
    if not hidden and not any(key.endswith('.attn.conv.weight') for key in weights):
        if layer:
            raise ValueError(f'attn_layer={layer!r}, but there are no weights of it')
        return None
    if not hidden:
        kwargs.done()
        return dict(kind='eca', place='mid')
    ratio = 1 / kwargs.take('rd_ratio', default=1 / base.get('ratio', 16))
    kwargs.ignore(rd_divisor=(8,))
    kwargs.done()
    return dict(kind='se', place='mid', ratio=ratio)
