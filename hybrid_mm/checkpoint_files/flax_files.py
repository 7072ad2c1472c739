"""Reader of the checkpoints of Flax: MessagePack with arrays as extension types.

The format is so small that a reader of our own is shorter than what it takes to use the package
msgpack safely: every length is compared with what is left of the file before anything is made.

https://github.com/msgpack/msgpack/blob/master/spec.md, and ``flax.serialization`` for the types
"""

import math
import struct
from pathlib import Path
from typing import Any

import torch

from hybrid_mm.checkpoint_files.arrays import tensor_of

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # extension types of Flax
_CHUNKED = '__msgpack_chunked_array__'
_NUMBERS = dict(zip(range(0xCA, 0xD4), ('>f', '>d', '>B', '>H', '>I', '>Q', '>b', '>h', '>i', '>q'),
                    strict=True))  # fmt: skip
_DEEPEST = 100


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = memoryview(data), 0

    def whole(self) -> Any:
        """The only value.

        Raises:
            ValueError: Something follows, or is missing.
        """
        value = self._value(0)
        if self._at != len(self._data):
            raise ValueError(f'{len(self._data) - self._at} bytes follow the last value')
        return value

    def _bytes(self, count: int) -> memoryview:
        if count > len(self._data) - self._at:
            raise ValueError(f'{count} bytes should follow, and {len(self._data) - self._at} do')
        self._at += count
        return self._data[self._at - count : self._at]

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._bytes(struct.calcsize(kind)))[0]

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f'containers in more than {_DEEPEST} containers')
        code = self._number('B')
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 256
        if code < 0xC0:
            kind, count = (('map', 15), ('array', 15), ('str', 31), ('str', 31))[(code >> 4) - 8]
            return self._sized(kind, code & count, depth)
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        match code:
            case 0xC0:
                return None
            case 0xC2 | 0xC3:
                return code == 0xC3
            case 0xC4 | 0xC5 | 0xC6:
                return self._sized('bin', self._number('>' + 'BHI'[code - 0xC4]), depth)
            case 0xC7 | 0xC8 | 0xC9:
                return self._sized('ext', self._number('>' + 'BHI'[code - 0xC7]), depth)
            case 0xD4 | 0xD5 | 0xD6 | 0xD7 | 0xD8:
                return self._sized('ext', 1 << (code - 0xD4), depth)
            case 0xD9 | 0xDA | 0xDB:
                return self._sized('str', self._number('>' + 'BHI'[code - 0xD9]), depth)
            case 0xDC | 0xDD:
                return self._sized('array', self._number('>' + 'HI'[code - 0xDC]), depth)
            case 0xDE | 0xDF:
                return self._sized('map', self._number('>' + 'HI'[code - 0xDE]), depth)
        raise ValueError('a code that the format does not have')

    def _sized(self, kind: str, count: int, depth: int) -> Any:
        match kind:
            case 'str':
                return str(self._bytes(count), 'utf-8', 'replace')
            case 'bin':
                return self._bytes(count)
            case 'array':
                return [self._value(depth + 1) for _ in range(count)]
            case 'map':
                return _joined({self._key(): self._value(depth + 1) for _ in range(count)})
        kind_of_extension = self._number('b')
        return _extension(kind_of_extension, self._bytes(count))

    def _key(self) -> Any:
        key = self._value(_DEEPEST)
        if not isinstance(key, str | int):
            raise ValueError(f'a key that is a {type(key).__name__}')
        return key


def _extension(kind: int, data: memoryview) -> Any:
    content = _Reader(data).whole()
    if kind == _COMPLEX and isinstance(content, list) and len(content) == 2:
        return complex(*content)
    if kind not in (_ARRAY, _SCALAR) or not isinstance(content, list) or len(content) != 3:
        raise ValueError(f'an extension of type {kind}, which Flax does not write')
    shape, dtype, numbers = content
    dtype = str(dtype, 'ascii') if isinstance(dtype, memoryview) else dtype
    if not isinstance(shape, list) or not isinstance(numbers, memoryview):
        raise ValueError('an array without shape or numbers')
    value = tensor_of(numbers, dtype, shape)
    return value.item() if kind == _SCALAR and hasattr(value, 'item') else value


def _joined(found: dict) -> Any:
    """Join the pieces of an array that is too large for one value."""
    if _CHUNKED not in found:
        return found
    shape = [found['shape'][str(i)] for i in range(len(found['shape']))]
    values = torch.cat([found['chunks'][str(i)] for i in range(len(found['chunks']))])
    if values.numel() != math.prod(shape):
        raise ValueError(f'the pieces of an array {tuple(shape)} have {values.numel()} numbers')
    return values.reshape(shape)


def read_msgpack(path: str) -> Any:
    """Read a checkpoint of ``flax.training.checkpoints`` or ``flax.serialization``.

    Returns:
        Nested dicts with tensors: ``{'step': ..., 'params': {...}, 'opt_state': {...}}``.

    Raises:
        Exception: It is damaged: any.
    """
    return _Reader(Path(path).read_bytes()).whole()


def is_msgpack(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a map from texts, as Flax writes it."""
    if not head or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return False
    at = {0xDE: 3, 0xDF: 5}.get(head[0], 1)
    code = head[at] if len(head) > at else 0
    first = {0xD9: 2, 0xDA: 3}.get(code, 1) + at
    length = head[at + 1] if code == 0xD9 else code & 31
    known = 0xA0 <= code <= 0xBF or code in (0xD9, 0xDA)
    return known and head[first : first + min(length, 8)].decode('latin1').isprintable()
