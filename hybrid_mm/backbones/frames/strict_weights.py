"""Strict loading of weights that a config names, for backbones and hosts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from hybrid_mm.checkpoint_files import MissingCheckpointError
from hybrid_mm.checkpoints import read_checkpoint, weights_of
from hybrid_mm.convert import convert, differences
from hybrid_mm.convert.core import StateDict, misfit
from hybrid_mm.convert.image_channels import check_mapping, inflated, other_channels
from hybrid_mm.errors import nearest, shorten
from hybrid_mm.ops.fitted_weights import FitsWeights, UnknownSizeError, fitted_weights

__all__ = ['StrictWeights', 'check_init_cfg']

# MMEngine's, whose map_location has no effect here, and ours
_INIT_KEYS = ('type', 'checkpoint', 'prefix', 'map_location', 'inflate_channels')


def _parts(keys: Sequence[str]) -> str:
    """Name keys of a state dict by the modules that they belong to."""
    parts: dict[str, list[str]] = {}
    for key in keys:
        parts.setdefault(key.partition('.')[0], []).append(key)
    return '; '.join(f'{part} ({shorten(names)})' for part, names in parts.items())


def check_init_cfg(init_cfg: Any, owner: str) -> None:
    """Check the keys of a ``Pretrained`` init_cfg, of which a misspelt one would have no effect.

    Args:
        init_cfg: That of a backbone; others than ``Pretrained`` are MMEngine's.
        owner: Name of the backbone, for messages.

    Raises:
        ValueError: A key is unknown, or ``inflate_channels`` is neither True, False nor a list.
    """
    if not isinstance(init_cfg, dict):
        return
    if str(init_cfg.get('type')).rpartition('.')[2] != 'Pretrained':
        return
    for key in init_cfg:
        if key not in _INIT_KEYS and not str(key).startswith('_'):
            raise ValueError(
                f'init_cfg of {owner} has no key {key!r}{nearest(str(key), _INIT_KEYS)}; those of '
                f'type="Pretrained" are {", ".join(_INIT_KEYS[1:])}'
            )
    if not isinstance(init_cfg.get('checkpoint'), str | Path):
        raise ValueError(
            f'init_cfg of {owner} needs checkpoint, the file of the weights, got '
            f'{init_cfg.get("checkpoint")!r}'
        )
    rule = init_cfg.get('inflate_channels')
    if not isinstance(rule, bool | list | tuple | None):
        raise ValueError(
            f'inflate_channels in init_cfg of {owner} must be True, False or a list of the source '
            f'of each channel, got {rule!r}'
        )


class StrictWeights(FitsWeights, BaseModule):
    """Mixin for modules of MMEngine: a ``Pretrained`` init_cfg is loaded strictly.

    Whoever loads weights, tables of another size are resized and what this module does without is
    left out (:meth:`fit_weights`). Nothing is filled in there, so that a strict loading still finds
    what is missing. :meth:`load_strictly`, which starts a training from a file, takes those of a
    pre-trained network as complete although they lack some parts (:meth:`initial_values`).
    """

    def init_weights(self) -> None:
        """Initialise; a ``Pretrained`` init_cfg is loaded strictly from ours or official files."""
        init = self.init_cfg
        if isinstance(init, dict) and str(init.get('type')).rpartition('.')[2] == 'Pretrained':
            check_init_cfg(init, type(self).__name__)
            self.load_pretrained(
                init['checkpoint'], init.get('prefix'), init.get('inflate_channels', False)
            )
            self._is_init = True
        else:
            super().init_weights()

    def leaves_out(self, key: str) -> bool:
        """Whether a tensor of a file is one that this module does without."""
        return False

    def initial_values(self, state: StateDict) -> StateDict:
        """Tensors of ours that a file of a pre-trained network lacks, and that keep their values.

        Args:
            state: Its weights.
        """
        return {}

    def fit_weights(self, state: StateDict) -> StateDict:
        """Leave out what this module does without."""
        return {key: value for key, value in state.items() if not self.leaves_out(key)}

    def announce(self, text: str) -> None:
        """Log what was done to weights."""
        print_log(text, 'current')

    def to_our_layout(self, state: StateDict) -> StateDict:
        """Bring the weights of a file into our layout; a classifier's head is named ``head.``."""
        return convert(state)

    def load_pretrained(
        self,
        path: str,
        prefix: str | None = None,
        inflate_channels: bool | Sequence[int | None] = False,
    ) -> None:
        """Load weights from a file or URL in our or an official layout.

        Args:
            path: Checkpoint of a backbone, classifier, detector or segmenter.
            prefix: Part of the file to take; by default ``backbone.`` where such keys exist.
            inflate_channels: Spread weights for images of three channels over ``in_channels``, by
                the rule or list of :func:`.convert.image_channels.check_mapping`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be read, or the weights belong to another model (the first
                differences are named).
        """
        try:
            loaded = read_checkpoint(path)
        except MissingCheckpointError as error:
            raise FileNotFoundError(
                f'pre-trained weights not found: {error}. Put the file there, point '
                'model.backbone.init_cfg.checkpoint at it, or train from scratch with '
                '--cfg-options model.backbone.init_cfg=None'
            ) from error
        weights = weights_of(loaded, path)
        prefix = (prefix or 'backbone.').removesuffix('.') + '.'
        beside: list[str] = []
        if not prefix.startswith('backbone.'):  # a part whose layout has names of its own
            part = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
            beside = [key for key in weights if part and not key.startswith(prefix)]
            weights = part or weights
        try:
            state = self.to_our_layout(weights)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        state = self._part(state, path, prefix, beside)
        state = self._with_channels(state, path, inflate_channels)
        try:
            self.load_strictly(state, path)
        except UnknownSizeError:
            raise
        except ValueError as error:
            own, found = self.state_dict(), fitted_weights(self, state)[0]
            if 2 * len(own.keys() & found.keys()) >= min(len(own), len(found)):
                raise  # one of this network, of another variant
            meta = loaded.get('meta')
            meta = meta if isinstance(meta, dict) else {}
            name = type(self).__name__
            what = misfit(weights, own, name, meta.get('source'))
            if what is None:
                raise
            file = f' ({meta["file"]})' if meta.get('weights') else ''
            raise ValueError(f'{path}{file} does not fit this {name}. {what}') from error

    def _with_channels(
        self, state: StateDict, path: str, rule: bool | Sequence[int | None]
    ) -> StateDict:
        """Spread the weights of three image channels over those of this network, if asked to."""
        other = other_channels(self.state_dict(), state)
        name = type(self).__name__
        if not other:
            if isinstance(rule, list | tuple):
                raise ValueError(
                    f'inflate_channels={list(rule)!r} of {name} has nothing to spread: {path} is '
                    'for as many channels as the network. channels=[...] of '
                    'hybrid_mm.LoadMultichannelImage changes the order of those of the images'
                )
            return state
        channels = next(iter(other.values()))
        if rule is False or rule is None:
            raise ValueError(
                f'{path} is for images of 3 channels, this {name} for {channels} '
                f'({shorten(list(other), 1)}); init_cfg=dict(..., inflate_channels=True) spreads '
                'the weights over them, see "Images of other channels" in docs/channels.md'
            )
        mapping = check_mapping(rule, channels)
        by = 'the mean of the three' if mapping == [None] else f'channels {mapping} of the file'
        self.announce(
            f'weights of {name}: {shorten(list(other), 1)} of 3 channels inflated to {channels}: '
            f'{by}, times 3/{channels}'
        )
        return {**state, **{key: inflated(state[key], mapping) for key in other}}

    def _part(self, state: StateDict, path: str, prefix: str, beside: list[str]) -> StateDict:
        """The weights of this module among those of a file; logs what is left out."""
        other = [key for key in state if not key.startswith(prefix)]
        if len(other) < len(state):
            state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        else:
            other = beside
        unused = {k for k in state if k.startswith(('head.', 'neck.')) or self.leaves_out(k)}
        if other or unused:
            print_log(f'{path}: left out {_parts([*other, *sorted(unused)])}', 'current')
        return {key: value for key, value in state.items() if key not in unused}

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout, perhaps of another size.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each. Or a table does
                not say what size it was made for.
        """
        try:
            state, changes = fitted_weights(self, state)
        except UnknownSizeError as error:
            raise UnknownSizeError(f'{origin}: {error}') from error
        state = {**self.initial_values(state), **state}
        found = differences(self.state_dict(), state)
        if found:
            raise ValueError(
                f'{origin} does not fit this {type(self).__name__}. Tensors {"; ".join(found)}. '
                'Check arch and the arguments of the backbone against those that the file was '
                'trained with'
            )
        self.announce_changes(changes)
        # only step counters of batch norms may be missing, which start at zero then
        self.load_state_dict(state, strict=False)
