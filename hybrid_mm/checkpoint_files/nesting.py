"""How deep the tuples of a checkpoint of torch are, before it is loaded.

Python computes the hash of a tuple by recursion in C without a limit: a key of a dict that is a
tuple in a hundred thousand tuples, which fits into a file of as many bytes, ends the process.
"""

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

_DEEPEST = 1000
_FEW = 5000  # operations that make tuples, in a pickle that is not looked into
_CODES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_STREAMS = 5  # pickles at the beginning of a file of torch's older format
_PUT, _GET = ('PUT', 'BINPUT', 'LONG_BINPUT'), ('GET', 'BINGET', 'LONG_BINGET')


def has_deep_tuples(path: str | os.PathLike[str]) -> bool:
    """Whether a file, unless it is damaged, has tuples in more than a thousand tuples."""
    try:
        return any(deepest_tuple(stream) > _DEEPEST for stream in _pickles(path))
    except Exception:  # of what is damaged: any
        return False


def _pickles(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The pickles that could be so deep."""
    with open(path, 'rb') as file:
        if file.read(2) != b'PK':
            file.seek(0)
            for _ in range(_STREAMS):
                yield file
            return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith('data.pkl'):
                data = archive.read(name)
                if sum(map(data.count, _CODES)) > _FEW:
                    yield io.BytesIO(data)


def deepest_tuple(file: BinaryIO) -> int:
    """Number of tuples within one another that a pickle makes, at most; nothing is made."""
    deepest, memo = 0, dict[int, int]()
    stack: list[int] = []  # for each value how deep the tuples in it are
    marked: list[list[int]] = []

    def taken(operation: Any) -> list[int]:
        nonlocal stack
        before = operation.stack_before
        values: list[int] = []
        if pickletools.markobject in before:
            values, stack = stack, marked.pop()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            values.append(stack.pop())
        return values

    operation: Any
    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name == 'MARK':
            marked.append(stack)
            stack = []
        elif name in _PUT or name == 'MEMOIZE':
            memo[len(memo) if name == 'MEMOIZE' else int(argument)] = stack[-1]
        elif name in _GET:
            stack.append(memo[int(argument)])
        else:
            depth = max(taken(operation), default=0) + name.startswith('TUPLE')
            stack += [depth] * len(operation.stack_after)
            deepest = max(deepest, depth)
    return deepest
