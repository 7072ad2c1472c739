"""Variants as dataclasses and as the dicts that users write."""

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar

import pytest

import hybrid_mm.backbones
from hybrid_mm.backbones import VAN, BaseBackbone
from hybrid_mm.backbones.frames.arch import (
    Arch,
    Count,
    Ratio,
    Size,
    StageCounts,
    StageKernels,
    StageOptions,
    StageRatios,
    StageSizes,
)

NETWORKS = [
    network
    for network in map(vars(hybrid_mm.backbones).get, hybrid_mm.backbones.__all__)
    if issubclass(network, BaseBackbone) and network.arch_zoo
]


@dataclass(frozen=True, kw_only=True)
class Part(Arch):
    """Of a variant."""

    width: Size
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Variant(Arch):
    """With a field of every type."""

    depths: StageSizes
    kernels: StageKernels
    ratios: StageRatios
    skipped: StageCounts
    options: StageOptions
    part: Part | None
    count: Count = 0
    ratio: Ratio | None = None


GOOD: dict[str, Any] = dict(
    depths=[1, 2],
    kernels=[3, 5],
    ratios=[0, 0.5],
    skipped=[0, 1],
    options=[None, [1, 2]],
    part=dict(width=3),
)


def variant(**changes):
    return Variant.from_dict({**GOOD, **changes}, 'Net')


def test_dict_and_back():
    made = variant()
    assert made.part == Part(width=3)
    assert made.options == (None, (1, 2))
    assert (made.count, made.ratio) == (0, None)
    assert Variant.from_dict(made.to_dict(), 'Net') == made
    assert variant(part=None).part is None
    assert variant(part=Part(width=4)).part.width == 4
    with pytest.raises(FrozenInstanceError):
        made.count = 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(depths=[1, 0]), 'Net: arch.depths must be positive, got'),
        (dict(kernels=[3, 4]), 'Net: arch.kernels must be odd and positive, got'),
        (dict(ratios=[1, -1]), 'Net: arch.ratios must be finite and not negative, got'),
        (dict(skipped=[-1, 1]), 'Net: arch.skipped must be finite and not negative, got'),
        (dict(ratio=float('nan')), 'Net: arch.ratio must be finite'),
        (dict(count=-1), 'Net: arch.count must be finite and not negative, got -1'),
        (dict(depths=3), 'arch.depths of Net: one entry per stage expected, got 3'),
        (dict(ratio=[0.5, 0.5]), r'arch.ratio of Net: one value expected, got \(0.5, 0.5\)'),
        (dict(part=[1]), r'arch.part of Net must be a dict, got \(1,\)'),
        (dict(options=[1]), "one entry per stage expected, got .*'options': 1"),
        ({key: [] for key in ('depths', 'kernels', 'ratios', 'skipped', 'options')}, 'one entry'),
        (dict(depht=[1, 2]), r"missing \[\], unknown \['depht'\]; did you mean depths"),
        (dict(part=dict(width=0)), 'Net: arch.part.width must be positive, got 0'),
        (dict(part=Part(width=0)), 'Net: arch.part.width must be positive, got 0'),
        (dict(part=dict(widht=1)), r"arch.part of Net .*missing \['width'\], unknown \['widht'\]"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        variant(**changes)


@pytest.mark.parametrize('network', NETWORKS)
def test_tables_of_variants(network):
    for name, arch in network.arch_zoo.items():
        assert isinstance(arch, network.arch_class), name
        assert network.resolve_arch(name) == arch
        assert network.resolve_arch(arch) == arch
        assert network.resolve_arch(arch.to_dict()) == arch, name
    for alias, name in network.arch_aliases.items():
        assert network.resolve_arch(alias.upper()) == network.arch_zoo[name]


def test_variants_of_another_network():
    for arch in (Part(width=1), 3, None):
        with pytest.raises(ValueError, match='arch of VAN must be a name, a dict or VANArch, got'):
            VAN(arch)


def test_subclass_with_variants_as_dicts():
    class Mine(VAN):
        arch_zoo: ClassVar = dict(own=VAN.arch_zoo['b0'].to_dict())

    assert Mine.resolve_arch('own') == VAN.arch_zoo['b0']
    with pytest.raises(ValueError, match='Mine has no arch'):
        Mine('b0')
