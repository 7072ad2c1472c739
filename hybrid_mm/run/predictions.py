"""Pickles of predictions, as ``tools/test.py --out`` writes them, read without running code."""

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from mmengine.fileio.handlers import PickleHandler
from mmengine.fileio.io import file_handlers

from hybrid_mm.compat import safe_loading
from hybrid_mm.compat.stored_classes import numpy_core
from hybrid_mm.errors import UserError

SUFFIXES = ('.pkl', '.pickle')


def _storage(data: bytes) -> Any:
    """Storage of a tensor; torch's own function would run code that is in the bytes."""
    return safe_loading.load(io.BytesIO(data), 'cpu')


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as Python 2 and old protocols write them."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in {encoding}')
    return text.encode('latin1')


# what plain values, arrays and tensors are made of; a value replaces what a pickle asks for
_ALLOWED: dict[tuple[str, str], Callable | None] = {
    **{('builtins', name): None for name in ('bytearray', 'complex', 'frozenset', 'set', 'slice')},
    ('collections', 'OrderedDict'): None,
    ('_codecs', 'encode'): _encode,
    **{
        (f'numpy.{core}.{module}', name): None
        for core in ('core', '_core')
        for module, name in (
            ('multiarray', '_reconstruct'),
            ('multiarray', 'scalar'),
            ('numeric', '_frombuffer'),
        )
    },
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): None,
    ('torch', 'Size'): None,
    ('torch._utils', '_rebuild_tensor_v2'): None,
    ('torch.storage', '_load_from_bytes'): _storage,
}


class _Names:
    """What a pickle may name; ``type_of_numbers`` takes the place of ``numpy.dtype``."""

    type_of_numbers = staticmethod(safe_loading.type_without_state)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            dtype = getattr(torch, name, None) if module == 'torch' else None
            if isinstance(dtype, torch.dtype):
                return dtype
            raise UserError(
                f'holds {module}.{name}, which is not a number, text, array or tensor and could '
                'run code; tools/test.py --out writes no such file'
            )
        if (module, name) == ('numpy', 'dtype'):
            return self.type_of_numbers
        own = _ALLOWED[module, name]
        if own is not None:
            return own
        if module.startswith(('numpy.core', 'numpy._core')):
            module = f'{numpy_core().__name__}.{module.rpartition(".")[2]}'
        return getattr(import_module(module), name)


class _Unpickler(_Names, pickle.Unpickler):
    pass


class _UnpicklerWithStates(_Names, pickle._Unpickler):
    """The same in Python, slower, which sees the states that types of numbers are given."""

    type_of_numbers = staticmethod(safe_loading.own_type_of_numbers)
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    stack: list[Any]

    def load_build(self) -> None:
        if isinstance(self.stack[-2], np.dtype):
            safe_loading.check_state(self.stack[-2], self.stack[-1])
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


def _unpickled(content: bytes) -> Any:
    if not safe_loading.may_swap_bytes(content):
        with contextlib.suppress(safe_loading.OtherTypeError):
            return _Unpickler(io.BytesIO(content)).load()
    return _UnpicklerWithStates(io.BytesIO(content)).load()


def read_predictions(file: str | Path | IO[bytes], name: str = '') -> Any:
    """Read a pickle of dicts, lists, numbers, texts, arrays and tensors.

    Args:
        file: Path, or an open file.
        name: Of an open file, for messages.

    Raises:
        UserError: It cannot be read, is damaged, or holds anything else, which is not executed.
    """
    if isinstance(file, str | Path):
        try:
            with open(file, 'rb') as opened:
                return read_predictions(opened, str(file))
        except OSError as error:
            raise UserError(f'{file} cannot be read: {error.strerror or error}') from error
    name = name or getattr(file, 'name', '') or 'the pickle'
    try:
        return _unpickled(file.read())
    except UserError as error:
        raise UserError(f'{name} {error}') from None
    except Exception as error:  # damaged bytes raise anything
        reason = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
        raise UserError(
            f'{name} is not a pickle of predictions, or is damaged ({reason})'
        ) from error


class _Handler(PickleHandler):
    """MMEngine's handler of pickles, which only reads predictions."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        return read_predictions(file, self.name)


@contextmanager
def safe_pickles(name: str = '') -> Iterator[None]:
    """Context in which ``mmengine.load`` reads pickles with :func:`read_predictions`.

    Args:
        name: Of the file that will be read, for messages.
    """
    before = {name: file_handlers[name] for name in ('pkl', 'pickle')}
    file_handlers.update(dict.fromkeys(before, _Handler(name)))
    try:
        yield
    finally:
        file_handlers.update(before)
