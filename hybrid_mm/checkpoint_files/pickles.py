"""Reader of pickles of NumPy arrays, which detectron2 publishes.

A pickle is a program. This one is run by an interpreter of ours that knows plain values and
containers, and of all functions only those with which NumPy takes its arrays apart; it makes
tensors of them itself. Nothing that a file names is imported or called.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

from hybrid_mm.checkpoint_files.arrays import replaced, tensor_of

_PLAIN = str | bytes | int | float | None  # of keys and members of sets: hashing is no danger


class RefusedError(ValueError):
    """A pickle that names what is neither a value nor an array; the text is its name."""


class _Array:
    """Array of a pickle; its numbers follow in a later operation."""

    content: Any = None


class _Type:
    """Type of numbers; the byte order follows in a later operation."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, '='


class _Known:
    """Name that a pickle may use, with what it does when called; None: it may be named only."""

    def __init__(self, call: Callable[..., Any] | None = None) -> None:
        self.call = call


def _text(value: Any) -> str:
    return value.decode('latin1') if isinstance(value, bytes | bytearray) else str(value)


def _type(code: Any, *unused: Any) -> _Type:
    if isinstance(code, _Known):
        names = [name.rpartition('.')[2] for name, known in _KNOWN.items() if known is code]
        return _Type(names[0])
    if isinstance(code, _Type) or not isinstance(code, str | bytes):
        raise ValueError('an array of a type of its own')
    return _Type(_text(code))


def _made(type_: Any, data: Any, shape: Any, order: str = 'C') -> Any:
    """Tensor of what a pickle says of an array."""
    if not isinstance(type_, _Type):
        raise ValueError('an array without a type')
    if isinstance(data, str):  # of Python 2
        data = data.encode('latin1')
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise ValueError('an array of objects; expected numbers')
    order_of_bytes = '' if type_.order in '=|' else type_.order
    return tensor_of(data, order_of_bytes + type_.code.lstrip('<>=|'), shape, order)


def _scalar(type_: Any, data: Any = b'') -> Any:
    value = _made(type_, data, ())
    return value.item() if hasattr(value, 'item') else value


def _frombuffer(data: Any, type_: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.content = (type_, data, shape, 'F' if _text(order) == 'F' else 'C')
    return array


def _encode(text: Any = '', encoding: Any = 'latin1') -> bytes:
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    if _text(encoding).lower().replace('-', '') not in ('latin1', 'utf8', 'ascii'):
        raise ValueError(f'the encoding {encoding!r}')
    if not isinstance(text, str):
        raise ValueError(f'bytes of a {type(text).__name__}')
    return text.encode(_text(encoding))


def _dict(pairs: Any = ()) -> dict:
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list | tuple):
        raise ValueError('a dict of something else than pairs')
    return {_plain(key): value for key, value in pairs}


def _plain(key: Any) -> Any:
    if not isinstance(key, _PLAIN):
        raise ValueError(f'a key that is a {type(key).__name__}')
    if isinstance(key, int) and key.bit_length() > 64:  # many of one hash would take hours
        raise ValueError('a key that is a number of more than 64 bits')
    return key


def _list(values: Any = ()) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError('a set of something else than a list')
    return list(values)


_KNOWN: dict[str, _Known] = {
    '_codecs.encode': _Known(_encode),
    'collections.OrderedDict': _Known(_dict),
    'collections.defaultdict': _Known(lambda factory=None, pairs=(): _dict(pairs)),
    'numpy.ndarray': _Known(),
    'numpy.dtype': _Known(_type),
    'ml_dtypes.bfloat16': _Known(),
}
for _package in ('numpy.core', 'numpy._core'):
    _KNOWN[f'{_package}.multiarray._reconstruct'] = _Known(lambda *unused: _Array())
    _KNOWN[f'{_package}.multiarray.scalar'] = _Known(_scalar)
    _KNOWN[f'{_package}.numeric._frombuffer'] = _Known(_frombuffer)
for _module in ('builtins', '__builtin__'):
    _KNOWN |= {f'{_module}.{_name}': _Known(_list) for _name in ('set', 'frozenset')}
    _KNOWN |= {f'{_module}.{_name}': _Known() for _name in ('dict', 'list', 'int', 'float', 'str')}
    _KNOWN |= {f'{_module}.{_name}': _Known(_encode) for _name in ('bytes', 'bytearray')}
    _KNOWN[f'{_module}.complex'] = _Known(lambda real=0.0, imag=0.0: complex(real, imag))


class _Bounded:
    """File that gives no more bytes than it has, whatever a length in it says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise EOFError(f'{count} bytes should follow, and {self._left} do')
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


class _Interpreter(pickle._Unpickler):  # its operations can be chosen
    """Interpreter with the operations that a pickle of arrays needs."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, encoding='latin1')
        # what is in a file once may be used again and again; see `spend`
        self._budget = 4 * file.size + 10_000

    def spend(self, values: Any) -> None:
        """Count what is copied: at most a few times what is in the file."""
        if isinstance(values, str | bytes | bytearray | list | tuple | dict):
            self._budget -= len(values)
        if self._budget < 0:
            raise ValueError('it holds far more than its size allows')

    def find_class(self, module: str, name: str) -> _Known:
        full = f'{module}.{name}'
        if full not in _KNOWN:
            raise RefusedError(full)
        return _KNOWN[full]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError(f'persistent id {str(pid)[:40]!r}')

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f'a {type(self.stack[-1]).__name__} in place of a {kind.__name__}')
        return self.stack[-1]

    def _call(self) -> None:
        arguments = self._top(tuple)
        self.stack.pop()
        call = self._top(_Known).call
        if call is None:
            raise ValueError('a call of something that is not a function')
        for argument in arguments:
            self.spend(argument)
        self.stack[-1] = call(*arguments)

    def _build(self) -> None:
        state = self._top(tuple)
        self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Array) and len(state) >= 4:
            shape, type_, fortran, data = state[-4:]
            self.spend(data)
            target.content = (type_, data, shape, 'F' if fortran else 'C')
        elif isinstance(target, _Type) and len(state) >= 5:
            if any(part is not None for part in state[2:5]):
                raise ValueError('an array of records; expected numbers')
            target.order = _text(state[1]) or '='
        else:
            raise ValueError('a state of what has none')

    def _append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self.pop_mark()
        self._top(list).extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[_plain(key)] = value

    def _setitems(self) -> None:
        items = self.pop_mark()
        self._top(dict).update(_dict(list(zip(items[::2], items[1::2], strict=True))))

    def _dictionary(self) -> None:
        items = self.pop_mark()
        self.append(_dict(list(zip(items[::2], items[1::2], strict=True))))

    def _list_of(self) -> None:
        self.append(self.pop_mark())

    def _empty_list(self) -> None:
        self.append([])

    def _bytearray(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), 'little')))

    def _refuse(self) -> None:
        raise ValueError('an operation of no pickle of arrays')


for _operations, _code in (
    (_Interpreter._call, pickle.REDUCE),
    (_Interpreter._build, pickle.BUILD),
    (_Interpreter._append, pickle.APPEND),
    (_Interpreter._appends, pickle.APPENDS + pickle.ADDITEMS),
    (_Interpreter._setitem, pickle.SETITEM),
    (_Interpreter._setitems, pickle.SETITEMS),
    (_Interpreter._dictionary, pickle.DICT),
    (_Interpreter._list_of, pickle.FROZENSET),
    (_Interpreter._empty_list, pickle.EMPTY_SET),
    (_Interpreter._bytearray, pickle.BYTEARRAY8),
    (_Interpreter._refuse, pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.INST + pickle.OBJ),
    (_Interpreter._refuse, pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.NEXT_BUFFER),
    (_Interpreter._refuse, pickle.READONLY_BUFFER),
):
    _Interpreter.dispatch.update(dict.fromkeys(_code, _operations))


def read_pickle(path: str) -> Any:
    """Read a pickle of plain values, containers and NumPy arrays; the arrays become tensors.

    Pickles of Python 2 and 3, of all protocols and of NumPy 1 and 2 are read; texts of Python 2
    as Latin-1. Sets become lists.

    Raises:
        RefusedError: It names something else.
        Exception: It is damaged: any.
    """
    with open(path, 'rb') as file:
        tree = _Interpreter(_Bounded(file)).load()

    def value(leaf: Any) -> Any:
        if isinstance(leaf, _Type | _Known):
            return None
        if not isinstance(leaf, _Array):
            return leaf
        if isinstance(leaf.content, tuple):  # it may be at several places
            leaf.content = _made(*leaf.content)
        if leaf.content is None:
            raise ValueError('an array without numbers')
        return leaf.content

    return replaced(tree, value)


_OLD_START = re.compile(  # protocols 0 and 1 have no header
    rb'\([dl]p\d+\n|[\]}]q[\x00\x01]|c(__builtin__|builtins|collections|copy_reg|numpy[\w.]*)\n'
)


def is_pickle(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a pickle."""
    if head[:1] == b'\x80':
        return head[1:2] in (b'\2', b'\3', b'\4', b'\5')
    return _OLD_START.match(head) is not None
