"""Weights that were made for another size are brought to the size of a module, whoever loads them.

A module that has tables of positions, or that takes files of another form, overrides
:meth:`FitsWeights.fit_weights`. It is called in ``_load_from_state_dict``, where torch runs the
hooks of ``register_load_state_dict_pre_hook``: every way to load weights ends there, be it
``load_state_dict``, MMEngine's ``load_checkpoint``, or a wrapper around the model. A method needs
no registration in constructors, which stock ResNets have as well, and copies of a module keep it.

Layers own their tables and fit them; a network fits what concerns several layers. A network
fits all that is inside of it at once, so that one line says what was done.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hybrid_mm.errors import shorten

__all__ = ['Changes', 'FitsWeights', 'SizedTables', 'UnknownSizeError', 'fitted_weights']

StateDict = dict[str, Tensor]
_LOGGER = logging.getLogger('hybrid_mm')


class UnknownSizeError(ValueError):
    """A table does not say what size it was made for; the text names it and what does."""


@dataclass
class Changes:
    """What :func:`fitted_weights` did to weights, for a message.

    Attributes:
        resized: Keys of the weights that were resized, by their old and new shapes.
        added: Keys of weights that were set because the file lacks them.
    """

    resized: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.resized or self.added)

    def __str__(self) -> str:
        groups = [
            f'{shorten(names, 1)} from {old} to {new}' for (old, new), names in self.resized.items()
        ]
        parts = []
        if groups:
            number = sum(map(len, self.resized.values()))
            parts.append(f'{number} of another size were resized: {shorten(groups, 4)}')
        if self.added:
            parts.append(f'{len(self.added)} that they lack were set: {shorten(self.added, 2)}')
        return '; '.join(parts)

    def note(self, prefix: str, given: StateDict, fitted: StateDict) -> None:
        """Compare weights of a module before and after it has fitted them."""
        known = {id(value) for value in given.values()}  # one that was renamed is not new
        for key, value in fitted.items():
            if key not in given:
                if id(value) not in known:
                    self.added.append(prefix + key)
            elif isinstance(value, Tensor) and _resized(given[key], value):
                shapes = tuple(given[key].shape), tuple(value.shape)
                self.resized.setdefault(shapes, []).append(prefix + key)


def _resized(given: Tensor, fitted: Tensor) -> bool:
    """Whether a tensor has another size, and not only its dimensions in another form."""
    return given.numel() != fitted.numel() or (
        given.ndim == fitted.ndim and given.shape != fitted.shape
    )


def fitted_weights(model: nn.Module, state: StateDict) -> tuple[StateDict, Changes]:
    """Bring weights to the sizes and to the form of a model and of all modules in it.

    What does not fit for another reason is left as it is.

    Args:
        model: Any model, without wrappers.
        state: Weights under the names of the model.

    Returns:
        A new state dict, in which what needs no change is the same tensor, and the changes.

    Raises:
        UnknownSizeError: A table does not say what size it was made for; the text names it.
    """
    state, changes = dict(state), Changes()
    for name, module in model.named_modules():
        if not isinstance(module, FitsWeights):
            continue
        prefix = f'{name}.' if name else ''
        given = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
        try:
            fitted = module.fit_weights(dict(given))
        except ValueError as error:
            raise UnknownSizeError(f'{prefix}{error}') from error
        changes.note(prefix, given, fitted)
        for key in given.keys() - fitted.keys():
            del state[prefix + key]
        state.update((prefix + key, value) for key, value in fitted.items())
    return state, changes


class FitsWeights(nn.Module):
    """Module that fits weights before it takes them, in every way to load them."""

    def fit_weights(self, state: StateDict) -> StateDict:
        """Bring weights to the sizes and to the form of this module; modules in it follow.

        What cannot be fitted stays as it is, so that loading names it.

        Args:
            state: Weights under the names of this module, perhaps not all of them. It may be
                changed.

        Returns:
            The weights. Those that fit already are the same tensors.

        Raises:
            ValueError: A table does not say what size it was made for. The text begins with its
                name and says which argument does.
        """
        return state

    def announce(self, text: str) -> None:
        """Log what was done to weights."""
        _LOGGER.info(text)

    def announce_changes(self, changes: Changes) -> None:
        """Log the changes to weights, if there are any, in one line."""
        if changes:
            self.announce(f'weights of {type(self).__name__}: {changes}')

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        given = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        try:
            fitted, changes = fitted_weights(self, given)
        except ValueError as error:
            raise UnknownSizeError(f'{prefix}{error}') from error
        for key in given.keys() - fitted.keys():
            del state_dict[prefix + key]
        state_dict.update((prefix + key, value) for key, value in fitted.items())
        self.announce_changes(changes)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SizedTables(FitsWeights):
    """Module with tables that are made for a size: those for another one are resized at loading.

    Attributes:
        tables: Names of the parameters.
    """

    tables: Sequence[str] = ()

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Resize a table.

        Args:
            name: Name of the parameter.
            table: Table of a file, of as many dimensions, float32 or wider.
            shape: Shape of ours.

        Returns:
            The table. If its shape is not ours then, the table is of another model, and is not
            resized.

        Raises:
            ValueError: It does not say what size it was made for.
        """
        raise NotImplementedError

    def fit_weights(self, state: StateDict) -> StateDict:
        """Resize the tables."""
        for name in self.tables:
            own, given = getattr(self, name), state.get(name)
            if isinstance(given, Tensor) and isinstance(own, Tensor) and given.shape != own.shape:
                state[name] = self._fitted(name, given, own)
        return state

    def _fitted(self, name: str, given: Tensor, own: Tensor) -> Tensor:
        if given.ndim != own.ndim or not given.is_floating_point() or not given.numel():
            return given
        # half precision is what a table is kept in, not what it is interpolated in
        table = given.detach().float() if given.element_size() < 4 else given.detach()
        try:
            table = self.resize_table(name, table, own.shape)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        return table.to(given.dtype) if table.shape == own.shape else given
