"""All digests, by name: ``configs/van``, ``networks/VAN``, ``signatures/layers``."""

from collections.abc import Callable
from dataclasses import dataclass

from . import of_configs, of_networks, of_signatures
from .stored import Digest


@dataclass(frozen=True)
class Kind:
    """A folder of digests.

    Attributes:
        names: Gives those that there are.
        compute: Gives the digest of a name.
        title: What the file of a name is about.
        part: What the test of a name belongs to (a mark).
    """

    names: Callable[[], list[str]]
    compute: Callable[[str], Digest]
    title: str
    part: str


KINDS = {
    'configs': Kind(
        lambda: list(of_configs.trees()),
        of_configs.compute,
        'Configs of configs/{}, resolved.',
        'tree:{}',
    ),
    'networks': Kind(
        of_networks.names,
        of_networks.compute,
        'Networks, {}: what they are built of, and how they start.',
        'network:{}',
    ),
    'signatures': Kind(
        of_signatures.names,
        of_signatures.compute,
        'Arguments and options with their defaults: {}.',
        'package:{}',
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


def part(name: str) -> str:
    kind, last = name.split('/')
    return KINDS[kind].part.format(last)
