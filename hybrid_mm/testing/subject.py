"""A network under test: how it is built, what it takes, and what is known about it."""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS, Registry
from torch import Tensor, nn

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.backbones.frames.base import BaseBackbone
from hybrid_mm.errors import nearest
from hybrid_mm.run.registered import arguments
from hybrid_mm.testing.outcome import ContractError, DoesNotApply, require, told

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Expected:
    """What a network promises beyond the contract, where the default is not meant.

    Attributes:
        stages: Number of stages of the whole network; by default what it says of itself.
        strides: Strides of the maps of all stages; by default what it says of itself, or for other
            networks what an image of 128 x 128 shows.
        rows: Rows of a map, a function of the rows of the image and the stride; by default
            H / stride, rounded up or down.
        drop_path_rates: Rate of every module with residual branches, by its name; a function of
            the network and ``drop_path_rate``. By default the rates of the blocks grow linearly.
        kept: Regular expression of the names of parameters that a block has beside its residual
            branches, as its shortcut.
        before_kept: The same of those in front of such a part, which it may see.
        shortcuts: Whether a network without its residual branches still returns something.
    """

    stages: int | None = None
    strides: Sequence[int] | None = None
    rows: Callable[[int, int], int] | None = None
    drop_path_rates: Callable[[BaseBackbone, float], Rates] | None = None
    kept: str = r'\.(shortcut|skip)\.'
    before_kept: str | None = None
    shortcuts: bool = True


class Subject:
    """A network under test.

    Args:
        network: A class, or its name in the registries, as ``'mmdet.ResNet'``.
        settings: Arguments of its constructor.
        expected: What is known about it.
    """

    def __init__(
        self, network: type | str, settings: Mapping[str, Any], expected: Expected
    ) -> None:
        self.cls = _class(network)
        self.name = network if isinstance(network, str) else self.cls.__name__
        self.type = network if isinstance(network, str) else _registered_name(self.cls)
        self.settings, self.expected = dict(settings), expected
        self.in_channels: int = self.settings.get('in_channels', 3)
        self.ours = issubclass(self.cls, BaseBackbone)
        self._known = {*self.settings, *arguments(self.cls)}

    def build(self, **changes: Any) -> Any:
        """Build the network from seed 0, as MMEngine sets it, some arguments replaced.

        Raises:
            ContractError: A ``BaseBackbone`` has no stages.
        """
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        model = self.cls(**copy.deepcopy({**self.settings, **changes}))
        require(
            not self.ours or hasattr(model, 'stages'),
            f'expected self.build() in the last line of {self.cls.__name__}.__init__, found a '
            'network without stages',
        )
        return model

    def evaluated(self, **changes: Any) -> Any:
        """The network in eval mode; ``eval()`` of MMDetection's networks returns None."""
        model = self.build(**changes)
        model.eval()
        return model

    def trained(self, **changes: Any) -> Any:
        """The network in training mode."""
        model = self.build(**changes)
        model.train()
        return model

    def takes(self, name: str) -> bool:
        """Whether the constructor has an argument of this name."""
        return name in self._known

    def accepted(self, **settings: Any) -> dict[str, Any]:
        """Those of some arguments that the constructor has."""
        return {name: value for name, value in settings.items() if self.takes(name)}

    def needs_argument(self, name: str) -> None:
        """Skip the check if the constructor has no such argument.

        Raises:
            DoesNotApply: It has none.
        """
        if not self.takes(name):
            raise DoesNotApply(f'{self.cls.__name__} has no argument {name}')

    def needs_base(self) -> None:
        """Skip the check unless the network is a ``BaseBackbone``.

        Raises:
            DoesNotApply: It is not.
        """
        if not self.ours:
            raise DoesNotApply('only subclasses of BaseBackbone promise this')

    def number_of_stages(self) -> int:
        """Stages of the whole network, of a ``BaseBackbone``."""
        return self.expected.stages or len(self.build().depths)

    def images(self, batch: int, height: int, width: int, dtype=torch.float32) -> Tensor:
        """Random images."""
        return torch.rand(batch, self.in_channels, height, width, dtype=dtype)

    def maps(self, model: nn.Module, x: Tensor) -> Sequence[Tensor]:
        """Maps of images; they have to be maps.

        Raises:
            ContractError: Something else is returned, or the network fails.
        """
        try:
            maps = model(x)
        except Exception as error:
            size = ' x '.join(map(str, x.shape[2:]))
            raise ContractError(f'image of {size}: {told(error)}') from error
        require(
            isinstance(maps, tuple | list)
            and all(isinstance(m, Tensor) and m.ndim == 4 for m in maps),
            f'output of {self.cls.__name__}: expected a tuple of maps (N, C, H, W), '
            f'found {_shown(maps)}',
        )
        return maps


def _class(network: Any) -> type[nn.Module]:
    """Class of a network, which may be given by its name in the registries.

    Raises:
        TypeError: It is something else, as an instance.
        ValueError: There is no such name.
    """
    if isinstance(network, str):
        found = MODELS.get(network)
        if found is None:
            scope, _, name = network.rpartition('.')
            registry = MODELS.children.get(scope, MODELS)
            near = nearest(name, registry.module_dict).replace(' mean ', f' mean {scope}.')
            raise ValueError(
                f'there is no network {network!r} in the registries{near}; the package of a scope '
                'has to be installed or in PYTHONPATH'
            )
        network = found
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        kind = network.__name__ if isinstance(network, type) else type(network).__name__
        raise TypeError(
            'check_backbone builds the network itself: expected a class or its name, as '
            f"'mmdet.ResNet', and its arguments, got an instance of {kind}"
        )
    return network


def _shown(output: Any) -> str:
    """What a network returned."""
    if isinstance(output, Tensor):
        return f'a tensor of {output.ndim} axes'
    kind = type(output).__name__
    return f'{kind} of [{", ".join(map(_shown, output))}]' if kind in ('tuple', 'list') else kind


def _registered_name(cls: type) -> str | None:
    """Name by which configs find a class, as ``my_net.MyNet``; None if it is not registered."""
    nodes: list[Registry] = [MODELS]
    while nodes:
        node = nodes.pop()
        for name, found in node.module_dict.items():
            if found is cls:
                return name if node.parent is None else f'{node.scope}.{name}'
        nodes += node.children.values()
    return None
