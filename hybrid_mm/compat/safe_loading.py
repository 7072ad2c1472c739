"""``torch.load`` that executes nothing, with every release of torch.

torch's own ``weights_only=True`` is used where it keeps that promise and takes further classes by
name. Before torch 2.5 it takes none, or none by name; until 2.5 a tar file can run code
(CVE-2025-32434), and until 2.9 operations on other things than dicts and false sizes of storages
corrupt memory (CVE-2026-24747). For those releases torch reads the archive, and an interpreter of
ours the pickle in it: with the same names, operations and errors.

NumPy's types of numbers can be told anything by a pickle, such as that their bytes are addresses of
objects, and arrays of them then read and write there. No release of torch looks at what they are
told: here they are, whoever interprets.

Remove the interpreter when torch >= 2.10 is required and NumPy checks types that it unpickles.
"""

import _compat_pickle
import codecs
import ctypes
import pickle
import re
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import IO, Any

_BLOCKED = ('sys', 'os', 'posix', 'nt')  # as torch, whoever allows something in them
_REBUILD = (
    *('parameter', 'parameter_with_state', 'tensor', 'tensor_v2', 'tensor_v3'),
    *('sparse_tensor', 'meta_tensor_no_storage', 'wrapper_subclass'),
    *('device_tensor_from_numpy', 'device_tensor_from_cpu_tensor'),
)  # of torch._utils, in which their names begin with _rebuild_
# types of numbers and functions that a later release may have
_NEWER = re.compile(r'torch\.[a-z]+\d\w*|torch\._utils\._rebuild_\w+')


class NewerTorchError(RuntimeError):
    """A file with something that the installed torch lacks; the text names it."""


def load(file: str | IO[bytes], map_location: Any = None, allowed: Iterable[Any] = ()) -> Any:
    """Read a file of ``torch.save`` without executing anything.

    Args:
        file: Path or open file.
        map_location: As of ``torch.load``.
        allowed: Classes and functions that it may name besides those that torch allows, or pairs
            of one and the name for which it stands, as ``torch.serialization.safe_globals`` takes
            them.

    Raises:
        pickle.UnpicklingError: It names or does something else. The text has ``weights_only`` and
            ``GLOBAL name`` or ``Unsupported operand``.
        NewerTorchError: It has types of numbers that only newer releases of torch have.
        Exception: It is damaged: any.
    """
    import torch

    allowed = list(allowed)
    if not torch_is_safe():
        return load_restricted(file, map_location, allowed)
    start = 0 if isinstance(file, str) else file.tell()
    native = _is_native(file)

    def without_state(code: Any, *unused: Any) -> Any:
        if not native:
            raise OtherTypeError
        return type_without_state(code)

    try:
        with torch.serialization.safe_globals(_with(without_state, allowed)), _no_remains():
            return torch.load(file, map_location, weights_only=True)
    except OtherTypeError:
        if not isinstance(file, str):
            file.seek(start)
        return load_restricted(file, map_location, allowed)


class OtherTypeError(Exception):
    """A type of numbers whose state matters."""


def _is_native(file: str | IO[bytes]) -> bool:
    """Whether a file has no arrays in another order of bytes than this machine, for all we see."""
    start = 0 if isinstance(file, str) else file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
            program = archive.read(name)
    except Exception:  # of another format, or damaged: any
        return False
    finally:
        if not isinstance(file, str):
            file.seek(start)
    return not may_swap_bytes(program)


def may_swap_bytes(program: bytes) -> bool:
    """Whether a pickle may have arrays in another order of bytes than this machine."""
    order = b'>' if sys.byteorder == 'little' else b'<'
    # the text of one character, in protocols 2 and 3, in 1 and those of Python 2, from 4 on, and 0
    starts = b'X\1\0\0\0', b'U\1', b'\x8c\1', b'V'
    return any(start + order in program for start in starts)


def _with(type_of_numbers: Callable[..., Any], allowed: list[Any]) -> list[Any]:
    """What is allowed, with a function of ours for ``numpy.dtype``."""
    import numpy as np

    return [(type_of_numbers, 'numpy.dtype') if x is np.dtype else x for x in allowed]


def type_of_numbers(code: Any, *unused: Any) -> Any:
    """The type of numbers or texts that a code stands for; what NumPy has besides is refused."""
    import numpy as np

    found = np.dtype(code) if type(code) is str and re.fullmatch(r'\w+', code) else None
    if found is None or found.kind not in 'biufcSU':
        raise pickle.UnpicklingError(f'weights_only: GLOBAL numpy.dtype of {code!r} is refused')
    return found


def type_without_state(code: Any, *unused: Any) -> Any:
    """The same, as one of NumPy's own objects, which ignore a state.

    Raises:
        OtherTypeError: There is none of this type.
    """
    found = type_of_numbers(code)
    if found is not type_of_numbers(code) or found.kind in 'SU':
        raise OtherTypeError
    return found


def own_type_of_numbers(code: Any, *unused: Any) -> Any:
    """The same, as an object that takes a state."""
    import numpy as np

    return np.dtype(type_of_numbers(code), copy=True)


def check_state(target: Any, state: Any) -> None:
    """Raise if a state says more of a type of numbers than the order of its bytes.

    Args:
        target: An object of ``numpy.dtype``.
        state: As its method ``__reduce__`` gives it.
    """
    expected = target.__reduce__()[2]
    if (
        type(state) is not tuple
        or len(state) != len(expected)
        or any(type(value) not in (int, str, type(None)) for value in state)
        or state[1] not in ('<', '>', '=', '|')
        or (state[0], *state[2:]) != (expected[0], *expected[2:])
    ):
        raise _refused('such a state of a type of numbers')


def torch_is_safe() -> bool:
    """Whether the installed torch has the fixes that are named above, from 2.10 on."""
    import torch

    return hasattr(torch._weights_only_unpickler.Unpickler, '_check_set_item_target')


def load_restricted(
    file: str | IO[bytes], map_location: Any = None, allowed: Iterable[Any] = ()
) -> Any:
    """Do what :func:`load` does with the interpreter of ours."""
    import torch

    if isinstance(file, str):
        with open(file, 'rb') as opened:
            return load_restricted(opened, map_location, allowed)
    names = _names_of_torch() | _by_name(_with(own_type_of_numbers, list(allowed)))

    class Unpickler(_Unpickler):
        known = names
        callable_ = frozenset(map(id, names.values()))

    def load_one(opened: IO[bytes], **options: Any) -> Any:
        return Unpickler(opened, **options).load()

    module = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=load_one)
    serialization: Any = torch.serialization
    start = file.tell()
    with torch.sparse.check_sparse_tensor_invariants(), _no_remains():
        if serialization._is_zipfile(file):
            with serialization._open_zipfile_reader(file) as archive:
                if 'constants.pkl' in archive.get_all_records():
                    raise _refused('a TorchScript archive')
                records = _Records(archive, file, start, map_location)
                return serialization._load(records, map_location, module, encoding='utf-8')
        _refuse_tar(file)
        return serialization._legacy_load(file, map_location, module, encoding='utf-8')


@contextmanager
def _no_remains() -> Iterator[None]:
    """Forget the sparse tensors of a file that fails: torch would fail with the next file."""
    import torch

    try:
        yield
    finally:
        torch._utils._sparse_tensors_to_validate.clear()


def _refused(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f'weights_only: {what} is refused')


def _refuse_tar(file: IO[bytes]) -> None:
    """Refuse the format of torch 0.1: torch unpacks such a file to disk."""
    start = file.tell()
    try:
        tarfile.open(fileobj=file, mode='r:').close()
    except tarfile.TarError:
        file.seek(start)
        return
    raise _refused('the format of torch 0.1')


class _Records:
    """Archive of a checkpoint whose storages have the size that its pickle says."""

    def __init__(self, archive: Any, file: IO[bytes], start: int, map_location: Any) -> None:
        self._archive, self._meta = archive, str(map_location) == 'meta'
        self._file, self._start = file, start
        self._sizes: dict[str, int] = {}
        if hasattr(file, 'readinto'):
            file.seek(start)
            with zipfile.ZipFile(file) as opened:
                self._sizes = {
                    entry.filename.partition('/')[2]: entry.file_size
                    for entry in opened.infolist()
                    if entry.compress_type == zipfile.ZIP_STORED
                }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def get_storage_from_record(self, name: str, size: int, *unused: Any) -> Any:
        """Numbers of a storage; torch before 2.10 would read beyond the end of a shorter one."""
        import torch

        if self._meta:
            return torch.empty(size, dtype=torch.uint8, device='meta')
        # what torch reads would have to be copied, and such copies can leave holes of their size
        directly = self._sizes.get(name) == size
        data = b'' if directly else self._archive.get_record(name)
        if not directly and len(data) != size:
            raise RuntimeError(f'{name} has {len(data)} bytes; expected {size}')
        numbers = torch.empty(max(size, 1), dtype=torch.uint8)
        if directly:
            self._file.seek(self._start + self._archive.get_record_offset(name))
            self._read(name, memoryview((ctypes.c_char * size).from_address(numbers.data_ptr())))
        else:
            ctypes.memmove(numbers.data_ptr(), data, size)
        # a part cannot be resized, as a tensor that is larger than its storage would do
        return torch.empty(0, dtype=torch.uint8).set_(numbers.untyped_storage()[:size])

    def _read(self, name: str, target: memoryview) -> None:
        file: Any = self._file
        done = 0
        while done < len(target):
            count = file.readinto(target[done:])
            if not count:
                raise RuntimeError(f'{name} has {done} bytes; expected {len(target)}')
            done += count


class _Operations(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f'weights_only: Unsupported operand {code}')


class _Unpickler(pickle._Unpickler):  # its operations can be chosen
    """Interpreter with the operations and names that torch's own has."""

    dispatch = _Operations()  # type: ignore[assignment]
    known: dict[str, Any]
    callable_: frozenset[int]  # identities: comparing what a file makes could run code

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    persistent_load: Any
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def _global(self) -> None:
        module, name = (self.readline()[:-1].decode() for _ in range(2))
        as_now = _compat_pickle.IMPORT_MAPPING.get(module, module), name  # of Python 2
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), as_now)
        full = f'{module}.{name}'
        if full in self.known and module not in _BLOCKED:
            self.append(self.known[full])
            return
        if _NEWER.fullmatch(full) and not _in_torch(full):
            raise NewerTorchError(full)
        raise _refused(f'GLOBAL {full.removeprefix("builtins.")}')

    def _protocol(self) -> None:
        self.read(1)

    def _allows(self, value: Any) -> bool:
        return id(value) in self.callable_

    def _persistent(self) -> None:
        pid = self.stack.pop()
        if type(pid) is not tuple or not pid or pid[0] not in ('storage', b'storage'):
            raise _refused('a persistent id of something else than a storage')
        self.append(self.persistent_load(pid))

    def _call(self) -> None:
        arguments = self.stack.pop()
        if not self._allows(self.stack[-1]):
            raise _refused(f'a call of a {type(self.stack[-1]).__name__}')
        self.stack[-1] = self.stack[-1](*arguments)

    def _new(self) -> None:
        import torch

        arguments, cls = self.stack.pop(), self.stack.pop()
        if not self._allows(cls) or not isinstance(cls, type):
            raise _refused(f'an object of a {type(cls).__name__}')
        is_parameter = cls is torch.nn.Parameter
        self.append(cls(*arguments) if is_parameter else cls.__new__(cls, *arguments))

    def _build(self) -> None:
        import numpy as np
        import torch

        state, target = self.stack.pop(), self.stack[-1]
        kind: Any = type(target)
        if not self._allows(kind):
            raise _refused(f'a state of a {kind.__name__}')
        if isinstance(target, np.dtype):
            check_state(target, state)
        if kind is torch.Tensor:  # of old releases
            target.set_(*state)
        elif kind is not OrderedDict and hasattr(target, '__setstate__'):
            target.__setstate__(state)
        else:
            attributes, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
            target.__dict__.update(attributes or {})
            for name, value in (slots or {}).items():
                setattr(target, name, value)

    def _list(self) -> list:
        if type(self.stack[-1]) is not list:
            raise _refused(f'an item of a {type(self.stack[-1]).__name__}')
        return self.stack[-1]

    def _append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def _appends(self) -> None:
        items = self.pop_mark()
        self._list().extend(items)

    def _dict(self) -> dict:
        if type(self.stack[-1]) not in (dict, OrderedDict, Counter):
            raise _refused(f'an entry of a {type(self.stack[-1]).__name__}')
        return self.stack[-1]

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._dict()[key] = value

    def _setitems(self) -> None:
        items, target = self.pop_mark(), self._dict()
        for i in range(0, len(items), 2):
            target[items[i]] = items[i + 1]


for _operation in (
    *(pickle.STOP, pickle.MARK),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.NONE, pickle.NEWFALSE, pickle.NEWTRUE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.SHORT_BINSTRING),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT),
):
    _Unpickler.dispatch[_operation[0]] = pickle._Unpickler.dispatch[_operation[0]]
for _operation, _does in (
    (pickle.PROTO, _Unpickler._protocol),
    (pickle.GLOBAL, _Unpickler._global),
    (pickle.BINPERSID, _Unpickler._persistent),
    (pickle.REDUCE, _Unpickler._call),
    (pickle.NEWOBJ, _Unpickler._new),
    (pickle.BUILD, _Unpickler._build),
    (pickle.APPEND, _Unpickler._append),
    (pickle.APPENDS, _Unpickler._appends),
    (pickle.SETITEM, _Unpickler._setitem),
    (pickle.SETITEMS, _Unpickler._setitems),
):
    _Unpickler.dispatch[_operation[0]] = _does


def _in_torch(name: str) -> bool:
    import torch

    owner, name = (torch._utils if '_utils' in name else torch), name.rpartition('.')[2]
    return hasattr(owner, name)


def _by_name(allowed: Iterable[Any]) -> dict[str, Any]:
    """What is allowed by its full name."""
    return {
        entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}': (
            entry[0] if isinstance(entry, tuple) else entry
        )
        for entry in allowed
    }


def _rebuild_tensor_v3(
    storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any, dtype: Any,
    metadata: Any = None,
) -> Any:  # fmt: skip
    """Tensor of a type that has no storage of its own (8 bits), as torch makes it since 2.2."""
    import torch

    storage = storage._untyped_storage
    tensor = torch.empty(0, dtype=dtype, device=storage.device, requires_grad=requires_grad)
    return tensor.set_(storage, offset, size, stride)


def _beyond(offset: int, size: Any, stride: Any) -> int:
    """Number of elements that a storage of a tensor has at least."""
    if min(offset, *size, *stride, 0) < 0:
        raise RuntimeError('a tensor of a negative size')
    steps = ((n - 1) * step for n, step in zip(size, stride, strict=True))
    return 0 if 0 in size else offset + 1 + sum(steps)


def _rebuild_qtensor(storage: Any, offset: int, size: Any, stride: Any, *others: Any) -> Any:
    """Quantised tensor; torch before 2.10 does not compare its size with that of its storage."""
    import torch

    offset, size, stride = int(offset), torch.Size(size), torch.Size(stride)
    in_a_byte = {torch.quint4x2: 2, torch.quint2x4: 4}.get(storage.dtype, 1)
    needed = _beyond(offset, size, stride) * torch._utils._element_size(storage.dtype)
    if needed > in_a_byte * torch.UntypedStorage.nbytes(storage._untyped_storage):
        raise RuntimeError('a quantised tensor is larger than its storage')
    return torch._utils._rebuild_qtensor(storage, offset, size, stride, *others)


def _rebuild_nested_tensor(buffer: Any, *places: Any) -> Any:
    """Nested tensor; torch does not compare its parts with what they are parts of."""
    import torch

    sizes, strides, offsets = (place.tolist() for place in places)
    for offset, size, stride in zip(offsets, sizes, strides, strict=True):
        if _beyond(offset, size, stride) > buffer.numel():
            raise RuntimeError('a nested tensor is larger than its storage')
    return torch._utils._rebuild_nested_tensor(buffer, *places)


def _names_of_torch() -> dict[str, Any]:
    """Names that torch 2.10 allows, as far as the installed release has them."""
    import torch

    known: dict[str, Any] = {
        'collections.OrderedDict': OrderedDict,
        'collections.Counter': Counter,
        'torch.nn.parameter.Parameter': torch.nn.Parameter,
        'torch.serialization._get_layout': torch.serialization._get_layout,
        'torch.Size': torch.Size,
        'torch.Tensor': torch.Tensor,
        'torch.device': torch.device,
        '_codecs.encode': codecs.encode,
        'builtins.bytearray': bytearray,
        'builtins.set': set,
        'builtins.complex': complex,
        'torch._tensor._rebuild_from_type_v2': torch._tensor._rebuild_from_type_v2,
        'torch._utils._rebuild_tensor_v3': _rebuild_tensor_v3,
    }
    constants = [v for v in vars(torch).values() if isinstance(v, torch.dtype | torch.qscheme)]
    known |= {str(value): value for value in constants}
    for cls in (*torch._tensor_classes, *torch._storage_classes):
        name = f'{cls.__module__}.{cls.__name__}'
        if 'sparse' in name:  # no file calls them, and their indices could be wrong
            continue
        of_numbers = name.endswith('Storage') and not name.startswith('torch.storage.')
        known[name] = torch.serialization.StorageType(cls.__name__) if of_numbers else cls
    for name in _REBUILD:
        if function := getattr(torch._utils, f'_rebuild_{name}', None):
            known[f'torch._utils._rebuild_{name}'] = function
    known['torch._utils._rebuild_qtensor'] = _rebuild_qtensor
    if hasattr(torch._utils, '_rebuild_nested_tensor'):
        known['torch._utils._rebuild_nested_tensor'] = _rebuild_nested_tensor
    own = getattr(torch.serialization, 'get_safe_globals', list)  # from torch 2.4 on
    return known | _by_name(own())
