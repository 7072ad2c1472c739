"""Networks described in the words of timm's ByobNet, as fields of a bottleneck network of ours.

Source: ``ByoModelCfg`` and ``ByoBlockCfg`` of timm's ``byobnet.py`` (stages of blocks of several
types, kinds of stems, settings of a network that single blocks override).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from hybrid_mm.errors import nearest
from hybrid_mm.layers.heads import make_divisible

_BLOCK: dict[str, Any] = dict(
    s=2,
    gs=None,
    br=1.0,
    attn_layer=None,
    attn_kwargs=None,
    self_attn_layer=None,
    self_attn_kwargs=None,
    block_kwargs=None,
)
_MODEL: dict[str, Any] = dict(
    downsample='conv1x1',
    stem_type='3x3',
    stem_pool='maxpool',
    stem_chs=32,
    width_factor=1.0,
    num_features=0,
    zero_init_last=True,
    fixed_input_size=False,
    act_layer='relu',
    norm_layer='batchnorm',
    aa_layer='',
    head_hidden_size=None,
    head_type='classifier',
    attn_layer=None,
    attn_kwargs={},
    self_attn_layer=None,
    self_attn_kwargs={},
    block_kwargs={},
)
# what the fields may be, where ours are fewer
_KNOWN: dict[str, tuple] = dict(
    downsample=('conv1x1', '', None),
    stem_type=('3x3', '', '7x7', 'tiered', 'deep', 'quad'),
    stem_pool=('maxpool', 'max', '', None),
    zero_init_last=(True,),
    act_layer=('relu', 'silu', 'swish'),
    norm_layer=('batchnorm',),
    aa_layer=('', None),
    head_hidden_size=(None,),
    head_type=('classifier', ''),
)


class ByobAttention(NamedTuple):
    """Attention of a network in timm's words.

    Attributes:
        layer: Its name, ``self_attn_layer``.
        fields: Names of its arguments in timm, each with our field of the same value and its
            default there; 'num_heads' is one of them, and may differ between stages.
        arguments: Those that are arguments of our network instead; False there.
    """

    layer: str
    fields: Mapping[str, tuple[str, Any]]
    arguments: Sequence[str]


class _Block(NamedTuple):
    """A block with all that is set for it or for its network; 'name' is where it is."""

    name: str
    type: str
    c: int
    s: int
    gs: int | None
    br: float
    gate: tuple | None
    attention: tuple | None
    kwargs: Mapping[str, Any]


def from_byob(given: Mapping[str, Any], attention: ByobAttention, owner: str) -> dict[str, Any]:
    """Fields of a :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckArch`.

    Args:
        given: Fields of timm's ``ByoModelCfg``, of which only ``blocks`` has no default. Each of
            its stages is a dict with the fields of ``ByoBlockCfg``, or several; or a dict with
            ``types``, two names of types in place of ``type``, and, as in timm's
            ``interleave_blocks``, ``every`` (1) and ``first`` (False). Objects of timm will do.
        attention: Attention of our network.
        owner: Class of our network, for messages.

    Raises:
        ValueError: Unknown fields, or one that our networks cannot express; the message names it.
    """
    return _Reader(attention, owner).arch(given)


def _as_dict(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(value)


class _Reader:
    def __init__(self, attention: ByobAttention, owner: str) -> None:
        self.attention, self.owner = attention, owner

    def refuse(self, field: str, value: Any, expected: str) -> NoReturn:
        raise ValueError(
            f'arch.{field} of {self.owner}: {value!r} cannot be expressed, expected {expected}'
        )

    def filled(self, given: Any, defaults: Mapping, needed: Sequence[str], field: str) -> dict:
        """Fields with defaults; unknown and missing ones are errors."""
        given = _as_dict(given)
        known = {*defaults, *needed}
        unknown, missing = sorted(set(given) - known), sorted(set(needed) - set(given))
        if unknown or missing:
            hints = ''.join(nearest(key, known) for key in unknown)
            raise ValueError(
                f'{field} of {self.owner} has the fields {sorted(known)} of timm: missing '
                f'{missing}, unknown {unknown}{hints}'
            )
        return {**defaults, **given}

    def arch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        model = self.filled(given, _MODEL, ['blocks'], 'arch')
        for name, known in _KNOWN.items():
            if model[name] not in known:
                self.refuse(name, model[name], ' or '.join(map(repr, known)))
        stages = [
            self.stage(stage, model, f'blocks[{index}]')
            for index, stage in enumerate(model['blocks'])
        ]
        blocks = [block for stage in stages for block in stage]
        plain = [block for block in blocks if block.type == 'bottle']
        factor, width = model['width_factor'], model['stem_chs'] or blocks[0].c
        if not isinstance(width, int):
            self.refuse('stem_chs', width, 'one number of channels')
        gate = self.shared('attn_layer', ((b.name, b.gate) for b in plain), None)
        kind = model['stem_type'] or '3x3'
        return dict(
            depths=[len(stage) for stage in stages],
            channels=[
                make_divisible(self.shared('c', ((b.name, b.c) for b in stage)) * factor)
                for stage in stages
            ],
            ratios=[self.shared('br', ((b.name, b.br) for b in stage)) for stage in stages],
            strides=[stage[0].s for stage in stages],
            attention=[self.indices(stage) for stage in stages],
            stem=dict(kind=kind, channels=round(width * factor), pool=bool(model['stem_pool'])),
            act='relu' if model['act_layer'] == 'relu' else 'silu',
            group_size=self.shared('gs', ((b.name, b.gs or 0) for b in plain), 0),
            gate=gate and dict(gate),
            bottle_in=self.shared('block_kwargs', self.flags(blocks, 'bottle_in'), False),
            linear_out=self.shared('block_kwargs', self.flags(blocks, 'linear_out'), False),
            shortcut=bool(model['downsample']),
            final=round(factor * model['num_features']) or None,
            **self.attention_fields(stages),
        )

    def stage(self, given: Any, model: dict, field: str) -> list[_Block]:
        """Blocks of a stage, each on its own."""
        alone = isinstance(given, Mapping) or dataclasses.is_dataclass(given)
        found: list[_Block] = []
        for entry in [given] if alone else given:
            entry = _as_dict(entry)
            if 'types' in entry:
                defaults = dict(_BLOCK, every=1, first=False)
                block = self.filled(entry, defaults, ['types', 'd', 'c'], f'arch.{field}')
                types = self.interleaved(block, field)
            else:
                block = self.filled(entry, _BLOCK, ['type', 'd', 'c'], f'arch.{field}')
                types = [block['type']] * block['d']
            for kind in types:
                found.append(self.block(kind, block, model, f'{field}[{len(found)}]'))
        if not found:
            self.refuse(field, given, 'at least one block')
        return found

    def interleaved(self, block: dict, field: str) -> list[str]:
        """Types of the blocks of a stage of which every so many is of the second type."""
        depth, every = block['d'], block['every']
        if len(block['types']) != 2:
            self.refuse(f'{field}.types', block['types'], 'two types')
        if isinstance(every, int):
            every = range(0 if block['first'] else every, depth, every + 1) or [depth - 1]
        return [block['types'][index in every] for index in range(depth)]

    def block(self, kind: str, block: dict, model: dict, name: str) -> _Block:
        if kind not in ('bottle', 'self_attn'):
            self.refuse(f'{name}.type', kind, "'bottle' or 'self_attn'")
        if block['gs'] is not None and not isinstance(block['gs'], int):
            self.refuse(f'{name}.gs', block['gs'], 'a number')
        own = block['block_kwargs']
        kwargs = dict(model['block_kwargs'] if own is None else own)
        flags = {'bottle_in', 'linear_out', 'attn_last'}
        usual = {('post_attn_na', True), ('extra_conv', False)}
        for key, value in kwargs.items():
            if key not in flags and (key, bool(value)) not in usual:
                self.refuse(f'{name}.block_kwargs', {key: value}, f'one of {sorted(flags)}')
        gate = attention = None
        if kind == 'bottle':
            gate = self.gate(block, model, bool(kwargs.get('attn_last')), name)
        else:
            attention = self.settings(block, model, name)
        numbers = {key: block[key] for key in ('c', 's', 'gs', 'br')}
        return _Block(name, kind, gate=gate, attention=attention, kwargs=kwargs, **numbers)

    @staticmethod
    def layer(block: dict, model: dict, name: str) -> tuple[str | None, dict]:
        """Name and arguments of a layer: those of the block, else of the network, never both."""
        own = block[f'{name}_kwargs']
        layer = model[f'{name}_layer'] if block[f'{name}_layer'] is None else block[f'{name}_layer']
        return layer or None, dict(model[f'{name}_kwargs'] if own is None else own)

    def gate(self, block: dict, model: dict, last: bool, name: str) -> tuple | None:
        layer, kwargs = self.layer(block, model, 'attn')
        if layer is None:
            return None
        if layer not in ('se', 'eca'):
            self.refuse(f'{name}.attn_layer', layer, "'se' or 'eca'")
        found = dict(kind=layer, place='out-conv' if last else 'mid')
        if layer == 'se':
            found['ratio'] = 1 / kwargs.pop('rd_ratio', 1 / 16)
            if kwargs.get('rd_divisor') == 8:
                del kwargs['rd_divisor']
        if kwargs:
            self.refuse(f'{name}.attn_kwargs', kwargs, "'rd_ratio' of 'se' at most")
        return tuple(found.items())

    def settings(self, block: dict, model: dict, name: str) -> tuple:
        layer, kwargs = self.layer(block, model, 'self_attn')
        if layer != self.attention.layer:
            self.refuse(f'{name}.self_attn_layer', layer, repr(self.attention.layer))
        for key in self.attention.arguments:
            if kwargs.pop(key, False):
                self.refuse(
                    f'{name}.self_attn_kwargs',
                    {key: True},
                    f'{key}=True as an argument of {self.owner}',
                )
        fields = self.attention.fields
        for key, value in kwargs.items():
            if key not in fields:
                self.refuse(f'{name}.self_attn_kwargs', {key: value}, f'some of {sorted(fields)}')
        return tuple(kwargs.get(key, default) for key, (_, default) in fields.items())

    def attention_fields(self, stages: list[list[_Block]]) -> dict[str, Any]:
        fields = self.attention.fields
        found: dict[str, Any] = {}
        for index, (key, (ours, default)) in enumerate(fields.items()):
            values = [
                [(b.name, b.attention[index]) for b in stage if b.attention is not None]
                for stage in stages
            ]
            if key == 'num_heads':
                found[ours] = [self.shared(key, stage, default) for stage in values]
            else:
                found[ours] = self.shared(key, (v for stage in values for v in stage), default)
        return found

    @staticmethod
    def indices(stage: list[_Block]) -> bool | tuple[int, ...]:
        found = tuple(i for i, block in enumerate(stage) if block.type == 'self_attn')
        return bool(found) if len(found) in (0, len(stage)) else found

    @staticmethod
    def flags(blocks: Iterable[_Block], key: str) -> list[tuple[str, bool]]:
        return [(block.name, bool(block.kwargs.get(key))) for block in blocks]

    def shared(self, field: str, values: Iterable[tuple[str, Any]], default: Any = None) -> Any:
        """The one value of all blocks, or the default if there are none."""
        values = list(values)
        for name, value in values[1:]:
            if value != values[0][1]:
                raise ValueError(
                    f'arch.{name}.{field} of {self.owner}: {value!r} cannot be combined with '
                    f'{values[0][1]!r} of {values[0][0]}; expected the same in all of them'
                )
        return values[0][1] if values else default
