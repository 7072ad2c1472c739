"""All digests, by name: ``configs/van``, ``networks/VAN``, ``signatures/layers``."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from . import of_configs, of_networks, of_signatures
from .stored import Digest


@dataclass(frozen=True)
class Kind:
    """A folder of digests.

    Attributes:
        names: Gives those that there are.
        compute: Gives the digest of a name.
        title: What the file of a name is about.
        parts: What the test of a name is about (marks); nothing for one that is always quick.
    """

    names: Callable[[], list[str]]
    compute: Callable[[str], Digest]
    title: str
    parts: Callable[[str], list[str]]


KINDS = {
    'configs': Kind(
        lambda: list(of_configs.trees()),
        of_configs.compute,
        'Configs of configs/{}, resolved.',
        lambda name: [f'tree:{name}'],
    ),
    'networks': Kind(
        of_networks.names,
        of_networks.compute,
        'Networks, {}: what they are built of, and how they start.',
        of_networks.parts_of,
    ),
    'signatures': Kind(
        of_signatures.names,
        of_signatures.compute,
        'Arguments and options with their defaults: {}.',
        lambda name: [],
    ),
}


def names() -> list[str]:
    """All digests."""
    return [f'{kind}/{name}' for kind, settings in KINDS.items() for name in settings.names()]


def compute(name: str) -> Digest:
    """The digest of a name."""
    kind, last = name.split('/')
    return KINDS[kind].compute(last)


def title(name: str) -> str:
    kind, last = name.split('/')
    return KINDS[kind].title.format(last)


def marked(kind: str) -> list:
    """The digests of a kind as parameters of a test."""
    return [
        pytest.param(f'{kind}/{name}', marks=pytest.mark.part_of(*parts) if parts else ())
        for name in KINDS[kind].names()
        for parts in [KINDS[kind].parts(name)]
    ]
