"""Whether a checkpoint is the one that was written.

Two things tell. Our training runs put a checksum of all that a checkpoint holds into it. Every
other file of ``torch.save`` is a zip archive with the CRC-32 of its parts, which torch writes but
does not compare when it reads.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

KEY = 'checksum'
_WHOLE = 'all:'  # before a checksum of the whole; older ones cover weights and optimizer
_BLOCK = 1 << 22
_MOST_PARTS = 5_000_000  # a container may be at many places, and these as well
_LARGEST = 1 << 30  # bytes of a tensor of which not all numbers are stored
# deflate makes zeros a thousand times smaller, and weights by a tenth
_LARGEST_RATIO, _ALWAYS_ALLOWED = 100, 1 << 28


def check_ratio(parts: Sequence[zipfile.ZipInfo]) -> None:
    """Check that parts of an archive are not far larger than the file.

    Raises:
        ValueError: They are.
    """
    packed = sum(part.compress_size for part in parts)
    unpacked = sum(part.file_size for part in parts)
    if unpacked > max(_ALWAYS_ALLOWED, _LARGEST_RATIO * packed):
        raise ValueError(f'{packed} bytes of it would be unpacked to {unpacked}')


def checksum(checkpoint: Mapping[str, Any]) -> str:
    """Checksum (BLAKE2b, 128 bits) of all of a checkpoint but its own entry ``checksum``.

    It depends on types, shapes, values and their places, and is the same before saving and after
    loading. About a second per gigabyte.

    Args:
        checkpoint: A loaded checkpoint, or one that is about to be saved.
    """
    digest = hashlib.blake2b(digest_size=16)
    parts: list[bytes | Future[bytes]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        _add(parts, pool, {key: value for key, value in checkpoint.items() if key != KEY})
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.result())
    return _WHOLE + digest.hexdigest()


def matches(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has the content of its ``checksum``, or has none."""
    stored = checkpoint.get(KEY)
    if isinstance(stored, str) and re.fullmatch('[0-9a-f]{32}', stored):
        return stored == _older_checksum(checkpoint)
    return stored is None or stored == checksum(checkpoint)


def covers_all(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has a checksum of all that is in it."""
    stored = checkpoint.get(KEY)
    return isinstance(stored, str) and stored.startswith(_WHOLE)


def _add(parts: list[bytes | Future[bytes]], pool: Executor, node: object) -> None:
    """Add a value with all that is in it; every part begins with its kind and its length."""
    if len(parts) > _MOST_PARTS:
        raise ValueError('it has containers within containers without an end')
    if isinstance(node, Tensor):
        parts.append(f'tensor {node.dtype} {tuple(node.shape)} '.encode())
        parts.append(pool.submit(_digest, node))
    elif isinstance(node, np.ndarray | np.generic):
        if node.dtype.byteorder == '>':  # loading a file makes it native
            node = node.astype(node.dtype.newbyteorder('='))
        parts.append(f'array {node.dtype.str} {node.shape} '.encode())
        if node.dtype.hasobject:
            _add(parts, pool, node.tolist())
        else:
            parts.append(np.ascontiguousarray(node).tobytes())
    elif isinstance(node, Mapping):
        parts.append(f'dict {len(node)} '.encode())
        for key, value in node.items():
            _add(parts, pool, key)
            _add(parts, pool, value)
    elif isinstance(node, list | tuple):
        parts.append(f'{"list" if isinstance(node, list) else "tuple"} {len(node)} '.encode())
        for value in node:
            _add(parts, pool, value)
    elif isinstance(node, str | bytes):
        data = node if isinstance(node, bytes) else node.encode('utf-8', 'surrogatepass')
        parts.append(f'{type(node).__name__} {len(data)} '.encode() + data)
    elif isinstance(node, set | frozenset):
        _add(parts, pool, sorted(map(repr, node)))
    elif isinstance(node, bool | int | float | complex | None | torch.dtype | torch.device):
        parts.append(f'{type(node).__name__} {node!r} '.encode())
    else:  # a HistoryBuffer of MMEngine, for example; its methods are not what is stored
        parts.append(f'{type(node).__module__}.{type(node).__qualname__} '.encode())
        state = getattr(node, '__dict__', {})
        _add(parts, pool, {k: v for k, v in state.items() if k != 'statistics_methods'})


def _digest(tensor: Tensor) -> bytes:
    """BLAKE2b of the numbers of a tensor."""
    stored = tensor.layout is torch.strided and tensor.untyped_storage().nbytes()
    if max(_LARGEST, stored) < tensor.numel() * tensor.element_size():
        raise ValueError(f'a tensor of {tensor.numel()} numbers, of which few are stored')
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if not tensor.numel() or tensor.is_meta:
        return b''
    return hashlib.blake2b(_bytes(tensor.resolve_conj().resolve_neg()), digest_size=16).digest()


def _bytes(tensor: Tensor) -> Any:
    """Numbers of a tensor that is not empty, as bytes; without a copy if it lies as it is."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _older_checksum(checkpoint: Mapping[str, Any]) -> str:
    """Checksum of the weights and the optimizer state, which older versions stored."""
    digest = hashlib.blake2b(digest_size=16)
    update: Callable[[Any], None] = digest.update

    def add(name: str, node: object) -> None:
        if isinstance(node, Tensor):
            update(f'{name} {node.dtype} {tuple(node.shape)}'.encode())
            if node.numel():
                update(_bytes(node))
        elif isinstance(node, dict):
            for key, value in node.items():
                add(f'{name}.{key}', value)
        elif isinstance(node, list | tuple):
            for i, value in enumerate(node):
                add(f'{name}.{i}', value)
        elif isinstance(node, int | float | str | None):
            update(f'{name} {node!r}'.encode())

    for part in ('state_dict', 'optimizer'):
        add(part, checkpoint.get(part))
    return digest.hexdigest()


def damage_of_archive(path: str | os.PathLike[str], tensors: bool) -> str | None:
    """What is wrong with the archive of a checkpoint.

    Args:
        path: The file. One that is no zip archive (the format of torch before 1.6) passes.
        tensors: Read the tensors as well, instead of their sizes and all the rest.

    Returns:
        A phrase, or None if nothing is.
    """
    with open(path, 'rb') as file:
        if file.read(2) != b'PK':
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            check_ratio(parts)
            checked = any(part.CRC for part in parts)  # torch can be told to write none
            for part in parts:
                if part.file_size != part.compress_size and part.compress_type == 0:
                    return f'the sizes of {part.filename} differ'
                is_tensor = '/data/' in part.filename
                if is_tensor == tensors and checked:
                    with archive.open(part) as opened:
                        while opened.read(_BLOCK):
                            pass
    except Exception as error:  # of a damaged archive: any
        return str(error) or type(error).__name__
    return None
