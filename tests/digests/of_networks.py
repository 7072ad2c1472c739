"""Digests of networks: types of modules with their numbers, drop path, and initial values.

One digest per class of backbone, and one each for plugins, layers and necks. A section is a variant
of the class's ``arch_zoo``, or a tiny network of the tests (``case``). Its lines:

- ``arch``, ``total``: settings, and number of parameters and buffers;
- ``layer_depth``, ``stage_depth``: parameters by layer for layer-wise decay, from the first on;
- ``drop_path``: rates of the residual branches, at a rate of 0.2 where the default is 0;
- ``count``: how many modules there are of a type with its numbers, sizes left out;
- ``constant``: how many parameters start at one value, such as layer scales and gains of norms;
- ``tree``: every module, or a hash of it where another section has it in full;
- ``initial``: mean and standard deviation of every parameter and buffer.

No number depends on chance: what is drawn takes the quantiles of its distribution (see shapes.py).
Nothing here names a file of the package.
"""

import hashlib
import importlib.util
import inspect
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

import hybrid_mm.backbones
import hybrid_mm.layers
import hybrid_mm.plugins
from hybrid_mm.registry import MODELS

from .shapes import SMALL, Quantiles, Shapes, quiet
from .stored import Digest, Section

TESTS = Path(__file__).resolve().parents[1]
RATE = 0.2
"""Drop path rate where the default is 0."""
SIZES = re.compile(
    r'channels|features|normalized_shape|dims?$|dim_|width|^size$|hidden|stage_|^heads$'
)
"""Names of what differs between stages and variants."""
USUAL = dict(
    dilation='(1, 1)',
    transposed='False',
    output_padding='(0, 0)',
    groups='1',
    affine='True',
    padding_mode="'zeros'",
    track_running_stats='True',
    elementwise_affine='True',
    inplace='False',
    ceil_mode='False',
    count_include_pad='True',
    return_indices='False',
)
"""Values that go without saying."""
DROP_PATHS = ('DropPath', 'StochasticDepth')


# -- which networks ------------------------------------------------------------------------------


@cache
def backbones() -> dict[str, type]:
    """Classes that can be built, by name."""
    found = {name: getattr(hybrid_mm.backbones, name) for name in hybrid_mm.backbones.__all__}
    zoos = {name: cls for name, cls in found.items() if getattr(cls, 'arch_zoo', None)}
    return {name: cls for name, cls in zoos.items() if name in MODELS}


@cache
def cases() -> dict[str, dict]:
    """Tiny networks of the backbones' contract, without their settings for the contract's sake."""
    path = TESTS / 'backbones/test_all.py'
    spec = importlib.util.spec_from_file_location('contract_for_digests', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        name: {k: v for k, v in case.items() if k != 'zero_init_residual'}
        for name, case in module.CASES.items()
    }


def parts() -> dict[str, dict[str, Callable[[], nn.Module]]]:
    """Plugins, layers and necks in their default form and in others, by digest."""
    plugins, layers = hybrid_mm.plugins, hybrid_mm.layers
    size = (6, 9)
    build = MODELS.build
    pyramid = dict(in_channels=[8, 16, 24, 32], out_channels=16, num_outs=5)
    return {
        'plugins': {
            'ACmix': partial(plugins.ACmix, 32, 32),
            'BAM': partial(plugins.BAM, 64),
            'BAM identity': partial(plugins.BAM, 64, init_identity=True),
            'CBAM': partial(plugins.CBAM, 64),
            'CBAM identity': partial(plugins.CBAM, 64, init_identity=True),
            'ContextBlock': partial(plugins.ContextBlock, 64, 0.25),
            'ContextBlock all': partial(
                plugins.ContextBlock, 64, 0.25, 'avg', ('channel_add', 'channel_mul')
            ),
            'CoordinateAttention': partial(plugins.CoordinateAttention, 64),
            'CoordinateAttention identity': partial(
                plugins.CoordinateAttention, 64, init_identity=True
            ),
            'ECA': partial(plugins.ECA, 64),
            'ECA identity': partial(plugins.ECA, 64, init_identity=True),
            'GatherExcite': partial(plugins.GatherExcite, 64),
            'GatherExcite mlp': partial(plugins.GatherExcite, 64, 0, mlp=True, map_size=8),
            'LambdaLayer': partial(plugins.LambdaLayer, 32, 48),
            'LambdaLayer plain': partial(plugins.LambdaLayer, 32, position_bias=False),
            'NonLocal2d': partial(plugins.NonLocal2d, 64),
            'NonLocal2d random': partial(plugins.NonLocal2d, 64, zeros_init=False),
            'SASAConv2d': partial(plugins.SASAConv2d, 32, 48, 3, padding=1),
            'SE': partial(plugins.SE, 64),
            'SE identity': partial(plugins.SE, 64, init_identity=True),
            'SelectiveKernel': partial(plugins.SelectiveKernel, 64),
            'SimplifiedNonLocal': partial(plugins.SimplifiedNonLocal, 64),
            'TripletAttention': partial(plugins.TripletAttention, 64),
        },
        'layers': {
            'AAConv2d': partial(
                layers.AAConv2d, 32, 48, key_channels=16, value_channels=8, heads=4, size=size
            ),
            'AttentionStem': partial(layers.AttentionStem, 3, 32),
            'BottleneckAttention': partial(layers.BottleneckAttention, 32, size),
            'BottleneckAttention absolute': partial(
                layers.BottleneckAttention, 32, size, position='absolute'
            ),
            'DepthwiseConv2d': partial(layers.DepthwiseConv2d, 32, 31),
            'DropPath': layers.DropPath,
            'ELSA': partial(layers.ELSA, 32, 4),
            'EfficientChannelGate': partial(layers.EfficientChannelGate, 64),
            'EvolvingAAConv2d': partial(
                layers.EvolvingAAConv2d,
                32,
                48,
                3,
                key_channels=16,
                value_channels=8,
                heads=4,
                size=size,
                evolves=True,
            ),
            'DecomposedLKA': partial(layers.DecomposedLKA, 32),
            'GlobalLocalFilter': partial(layers.GlobalLocalFilter, 32, size),
            'HaloAttention': partial(layers.HaloAttention, 32),
            'LKA': partial(layers.LKA, 32),
            'LKATrivial': partial(layers.LKATrivial, 32),
            'LSKA': partial(layers.LSKA, 32),
            'LSKATrivial': partial(layers.LSKATrivial, 32),
            'LayerNorm2d': partial(layers.LayerNorm2d, 32),
            'LocalSelfAttention2d': partial(layers.LocalSelfAttention2d, 32, 48),
            'PairwiseAttention2d': partial(layers.PairwiseAttention2d, 32, 16, 32),
            'PatchwiseAttention2d': partial(layers.PatchwiseAttention2d, 32, 16, 32),
            'PatchwiseAttention2d mix': partial(layers.PatchwiseAttention2d, 32, 16, 32, mix=True),
            'PoolingAttention': partial(layers.PoolingAttention, 32, 64, 4, size, 2, 2),
            'QuadraticAttention2d': partial(layers.QuadraticAttention2d, 32, 48, 9),
            'QuadraticAttention2d learned': partial(
                layers.QuadraticAttention2d, 32, 48, 9, 'learned'
            ),
            'RecursiveGatedConv': partial(layers.RecursiveGatedConv, 32, 32, 32),
            'RecursiveGatedConv filter': partial(
                layers.RecursiveGatedConv, 32, 32, 32, filter_size=size
            ),
            'RelativePosition2d': partial(layers.RelativePosition2d, size, 8),
            'RelativePosition2d random': partial(layers.RelativePosition2d, size, 8, std=0.02),
            'SelfAttention': partial(layers.SelfAttention, 32, 4, size),
            'SqueezeExcite': partial(layers.SqueezeExcite, 64),
        },
        'necks': {
            'HorFPN': partial(build, dict(type='hybrid_mm.HorFPN', **pyramid)),
            'HorFPN filter': partial(
                build, dict(type='hybrid_mm.HorFPN', filter_size=(12, 7), **pyramid)
            ),
            'HorUPerHead': partial(
                build,
                dict(
                    type='hybrid_mm.HorUPerHead',
                    in_channels=[8, 16, 24, 32],
                    channels=16,
                    in_index=[0, 1, 2, 3],
                    num_classes=5,
                ),
            ),
            'SimpleFPN': partial(
                build, dict(type='hybrid_mm.SimpleFPN', in_channels=32, out_channels=16)
            ),
            'PluginResNet se': partial(
                build,
                dict(
                    type='hybrid_mm.PluginResNet',
                    depth=50,
                    plugins=[dict(cfg=dict(type='hybrid_mm.SE'), position='after_conv3')],
                ),
            ),
        },
    }


def names() -> list[str]:
    """All digests."""
    return [*backbones(), 'QuadraticAttentionEncoder', *parts()]


def parts_of(name: str) -> list[str]:
    """What a digest is about: the classes in it."""
    if name == 'plugins':
        return [f'digest:{plugin}' for plugin in hybrid_mm.plugins.__all__]
    return [] if name in parts() else [f'digest:{name}']


def compute(name: str) -> Digest:
    """Digest of a class, or of plugins, layers or necks."""
    if name in parts():
        return {
            part: describe(build(make, real=True), full=True)
            for part, make in parts()[name].items()
        }
    cls = getattr(hybrid_mm.backbones, name)
    if name not in backbones():
        return {'default': describe(build(cls, real=True), full=True)}
    found: Digest = {}
    for arch, settings in cls.arch_zoo.items():
        values = settings.to_dict()
        found[arch] = {f'arch.{key}': repr(_lists(value)) for key, value in values.items()}
        found[arch] |= describe(build(cls, arch=arch))
    smallest = min(found, key=lambda arch: int(found[arch]['total'].split()[0]))
    found[smallest] |= describe(build(cls, real=True, arch=smallest), full=True)
    for case, settings in cases().items():
        if MODELS.get(settings['type']) is cls:
            settings = {key: value for key, value in settings.items() if key != 'type'}
            section = describe(build(cls, real=True, **settings), full=True)
            found[f'case {case}'] = {
                key: value for key, value in section.items() if not key.startswith('tree.')
            } | {'tree': section['tree']}
    return found


def _lists(value: object) -> object:
    """Sequences as lists, as they are written in configs."""
    return [*map(_lists, value)] if isinstance(value, tuple | list) else value


def build(cls: Callable[..., nn.Module], real: bool = False, **settings) -> nn.Module:
    """Build and initialise a network; its large weights have values only if ``real``."""
    if cls in backbones().values():
        rate = inspect.signature(cls).parameters.get('drop_path_rate')
        if rate is None or rate.default == 0:  # one that takes **kwargs hands it on
            settings = {'drop_path_rate': RATE, **settings}
    with quiet(), Quantiles(), Shapes(small=math.inf if real else SMALL):
        model = cls(**settings)
        if hasattr(model, 'init_weights'):
            model.init_weights()
    return model


# -- what they are -------------------------------------------------------------------------------


def _tag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def describe(model: nn.Module, full: bool = False) -> Section:
    """All lines of a network but ``arch``.

    Args:
        model: The network.
        full: With ``tree.`` and ``initial.`` lines.
    """
    lines = _tree(model)
    found = {'total': _total(model), 'drop_path': drop_path(model)}
    found |= {f'count.{text}': str(n) for text, n in _counts(model).items()}
    found |= {f'constant.{text}': str(n) for text, n in _constants(model).items()}
    for name in ('layer_depth', 'stage_depth'):
        if hasattr(model, f'get_{name}'):
            found[name] = _depths(model, getattr(model, f'get_{name}'))
    found['tree'] = _tag('\n'.join(': '.join(line) for line in lines))
    if full:
        found |= {f'tree.{path}'.rstrip('.'): text for path, text in lines[1:]}
        found |= {f'initial.{name}': text for name, text in initial(model).items()}
    return found


def _total(model: nn.Module) -> str:
    kept = model.state_dict().keys()
    buffers = dict(model.named_buffers())
    parameters = list(model.parameters())
    frozen = sum(not p.requires_grad for p in parameters)
    return (
        f'{sum(p.numel() for p in parameters)} elements in {len(parameters)} parameters '
        f'({frozen} frozen), {len(buffers.keys() & kept)} buffers, '
        f'{len(buffers.keys() - kept)} of them not saved'
    )


def _depths(model: nn.Module, depth_of: Callable[[str, str], tuple[int, int]]) -> str:
    names = [f'backbone.{name}' for name, _ in model.named_parameters()]
    depths = [depth_of(name, 'backbone.')[0] for name in names]
    count = Counter(depths)
    numbers = _runs([str(count[i]) for i in range(max(depths) + 1)])
    tag = _tag('\n'.join(f'{i} {name}' for name, i in sorted(zip(names, depths, strict=True))))
    return f'{numbers} of {depth_of("neck", "backbone.")[1]} layers, names {tag}'


def drop_path(model: nn.Module) -> str:
    """Rates of the drop paths in the order of the modules; ``3x0.1`` are three of 0.1."""
    modules = [m for m in model.modules() if type(m).__name__ in DROP_PATHS]
    rates = [f'{getattr(m, "rate", getattr(m, "drop_prob", None)):.4g}' for m in modules]
    return _runs(rates) or 'none'


def _runs(words: list[str]) -> str:
    runs = [(word, len(list(same))) for word, same in itertools.groupby(words)]
    return ' '.join(word if n == 1 else f'{n}x{word}' for word, n in runs)


def _value(value) -> str | None:
    """Number, word or switch, or a list of them; a function by its name."""
    if isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, tuple | list):
        items = [_value(item) for item in value]
        return None if None in items else f'({", ".join(items)})'
    if isinstance(value, partial):
        settings = ''.join(f' {k}={_value(v)}' for k, v in value.keywords.items())
        return f'<{value.func.__name__}{settings}>'
    if inspect.isroutine(value) or inspect.isclass(value):
        return f'<{value.__name__}>'
    return None


def _attributes(module: nn.Module) -> dict[str, str]:
    found = {}
    for name, value in vars(module).items():
        text = None if name.startswith('_') or name == 'training' else _value(value)
        if text is not None:
            found[name] = text
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.groups == module.in_channels > 1:
            found['groups'] = 'depthwise'
        found['bias'] = str(module.bias is not None)
    elif isinstance(module, nn.Linear):
        found['bias'] = str(module.bias is not None)
    if type(module).__name__ in DROP_PATHS:
        return {}
    return {key: value for key, value in found.items() if USUAL.get(key) != value}


def _own(module: nn.Module) -> str:
    """A module without what is in it."""
    text = ', '.join(f'{key}={value}' for key, value in _attributes(module).items())
    text = f'{type(module).__name__}({text})'
    parameters = {name: p for name, p in module._parameters.items() if p is not None}
    if type(module).__module__.startswith('torch.'):  # its arguments tell
        return text + ' frozen' * any(not p.requires_grad for p in parameters.values())
    unsaved = module._non_persistent_buffers_set
    for name, p in parameters.items():
        text += f' {name}{list(p.shape)}' + ' frozen' * (not p.requires_grad)
    for name, b in module._buffers.items():
        if b is not None:
            text += f' {name}{list(b.shape)} {str(b.dtype)[6:]}' + ' not saved' * (name in unsaved)
    return text


def _tree(module: nn.Module) -> list[tuple[str, str]]:
    """Paths and modules; numbered ones that are equal stand together."""
    lines = [('', _own(module))]
    groups: dict[tuple, list[str]] = {}
    for name, child in module.named_children():
        below = tuple(_tree(child))
        groups.setdefault((name if not name.isdigit() else '', below), []).append(name)
    for (_, below), members in groups.items():
        name = _ranges([int(m) for m in members]) if members[0].isdigit() else members[0]
        lines += [(f'{name}.{path}'.rstrip('.'), text) for path, text in below]
    return lines


def _ranges(numbers: list[int]) -> str:
    """``0-2,4`` for 0, 1, 2, 4."""
    numbers = sorted(numbers)
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)


def _counts(model: nn.Module) -> Counter:
    found: Counter = Counter()
    for module in model.modules():
        texts = [
            f'{key}={value}' for key, value in _attributes(module).items() if not SIZES.search(key)
        ]
        found[f'{type(module).__name__}({", ".join(texts)})'] += 1
    for name in ('Sequential', 'ModuleList', 'Identity'):
        del found[f'{name}()']
    return found


def _constants(model: nn.Module) -> Counter:
    found: Counter = Counter()
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None and not p.is_meta and (p == p.flatten()[0]).all():
                value = p.detach().flatten()[0].item()
                found[f'{type(module).__name__}.{name} = {value:.6g}'] += 1
    return found


# -- initial values ------------------------------------------------------------------------------


def initial(model: nn.Module) -> Section:
    """Mean and standard deviation of all parameters and buffers, equal ones together."""
    patterns: dict[str, dict[tuple[int, ...], str]] = {}
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked')):
            numbers = tuple(int(n) for n in re.findall(r'(?<=\.)\d+(?=\.)', f'.{name}'))
            pattern = re.sub(r'(?<=\.)\d+(?=\.)', '{}', f'.{name}')[1:]
            patterns.setdefault(pattern, {})[numbers] = _statistics(tensor.detach())
    found = {}
    for pattern, texts in patterns.items():
        for text in dict.fromkeys(texts.values()):
            members = [numbers for numbers, other in texts.items() if other == text]
            for where in _boxes(members, list(texts)):
                found[pattern.format(*where)] = text
    return found


def _statistics(tensor: torch.Tensor) -> str:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    values = tensor.double()
    mean, std = values.mean().item(), values.std(unbiased=False).item()
    if std <= 1e-6 * abs(mean):
        return f'all {mean:.4g}'
    return f'mean {0 if abs(mean) < 0.02 * std else mean:.4g} std {std:.4g}'


def _boxes(members: list[tuple[int, ...]], all_of: list[tuple[int, ...]]) -> list[tuple[str, ...]]:
    """Tuples of numbers as few products of ranges; ``*`` for all that there are."""
    if len(members) == len(all_of):
        return [('*',) * len(members[0])]
    alike: dict[tuple, list[int]] = {}
    for head in dict.fromkeys(numbers[0] for numbers in members):
        tails = [[rest for first, *rest in given if first == head] for given in (members, all_of)]
        alike.setdefault(tuple(_boxes(*tails)), []).append(head)
    return [(_ranges(heads), *tail) for tails, heads in alike.items() for tail in tails]
