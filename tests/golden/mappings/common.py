"""What the mappings share."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hybrid_mm.convert import convert

# what MMPretrain's networks take and what has no effect on their maps
UNUSED = dict.fromkeys(
    ('drop_rate', 'drop_path_rate', 'frozen_stages', 'norm_eval', 'with_cp', 'init_cfg'), ...
)
UNUSED |= dict.fromkeys(('patch_cfg', 'layer_cfgs', 'block_cfgs'), ({},))


class Config(dict):
    """Official config of which every argument must be used: :meth:`done` names what is left."""

    def take(self, *names: str, default: Any = None) -> Any:
        """Remove and return the first of the names that is present."""
        for name in names:
            if name in self:
                return self.pop(name)
        return default

    def ignore(self, **allowed: Any) -> None:
        """Drop arguments without effect in eval mode; a tuple lists the values that have none."""
        for name, values in allowed.items():
            if name in self and (values is ... or self[name] in values):
                del self[name]

    def done(self) -> None:
        """Raise ValueError if anything is left."""
        if self:
            raise ValueError('cannot map ' + ', '.join(f'{k}={v!r}' for k, v in self.items()))


def norm_eps(text: Any, default: float) -> float:
    """Epsilon in a norm's description such as 'LayerNorm(eps=1e-6)' or 'LN eps 1e-5'."""
    if isinstance(text, Mapping):
        return float(text.get('eps', default))
    match = re.search(r'eps\s*=?\s*([0-9.eE+-]+)', str(text or ''))
    return float(match[1]) if match else default


def load(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load strictly and return the module."""
    module.load_state_dict(weights, strict=True)
    return module


def without_unused_norms(
    state: dict[str, Tensor], out_indices: tuple[int, ...]
) -> dict[str, Tensor]:
    """Leave out the norms of maps that are not returned, which official networks have all."""
    unused = re.compile(r'stages\.(\d+)\.norm\.')
    found = {key: unused.match(key) for key in state}
    return {k: v for k, v in state.items() if not found[k] or int(found[k][1]) in out_indices}


def of_mmpretrain(
    network: type[nn.Module], config: Mapping[str, Any], weights: dict[str, Tensor], **defaults: Any
) -> nn.Module:
    """Network by MMPretrain's arguments, which it takes under their names.

    Args:
        network: Class of ours.
        config: MMPretrain's arguments.
        weights: State dict in a layout that our converters know.
        **defaults: Of MMPretrain, where ours are others.
    """
    config = Config(config)
    config.ignore(**UNUSED)
    model = network(**{**defaults, **config})
    return load(model, without_unused_norms(convert(weights), model.out_indices))


def convert_part(
    weights: dict[str, Tensor], official: str, ours: str, source: str
) -> dict[str, Tensor]:
    """Convert the weights of a part of a network, which the files keep without a prefix.

    Args:
        weights: Official state dict of the part.
        official: Where the part is in the official network, with the final dot.
        ours: Where it is in ours.
        source: Name of the layout.
    """
    state = convert({official + k: v for k, v in weights.items()}, source)
    strange = [k for k in state if not k.startswith(ours)]
    if strange:
        raise ValueError(f'keys outside of the part: {strange[:3]}')
    return {k[len(ours) :]: v for k, v in state.items()}


class Classifier(nn.Module):
    """Backbone, mean over positions (or its class token), linear head."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.backbone(x)[-1]
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)

    def load(self, state: dict[str, Tensor]) -> nn.Module:
        """Load a converted state dict strictly and return the module."""
        names = {k: k if k.startswith('head.') else f'backbone.{k}' for k in state}
        return load(self, {names[k]: v for k, v in state.items()})
