"""Operators of our own for torch, from functions annotated with built-in types."""

import typing
from collections.abc import Callable, Sequence

import torch

_OLD = {list: typing.List, Sequence: typing.Sequence}  # noqa: UP006


def custom_op(name: str) -> Callable[[Callable], torch.library.CustomOpDef]:
    """Decorator as ``torch.library.custom_op`` of a function that changes no argument.

    torch up to 2.6 at least reads ``typing.List[int]`` but not ``list[int]``, and so with
    ``Sequence``.

    Args:
        name: ``hybrid_mm::NAME``.
    """

    def decorate(function: Callable) -> torch.library.CustomOpDef:
        annotations = {}
        for key, kind in function.__annotations__.items():
            old = _OLD.get(typing.get_origin(kind))
            annotations[key] = old[typing.get_args(kind)[0]] if old else kind
        function.__annotations__ = annotations
        return torch.library.custom_op(name, mutates_args=())(function)

    return decorate
