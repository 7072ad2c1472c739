"""What a file that is given as a checkpoint is, from its first bytes: its name says nothing."""

import os
import stat
import tarfile
import zipfile
from pathlib import Path

from hybrid_mm.checkpoint_files.flax_files import is_msgpack
from hybrid_mm.checkpoint_files.pickles import is_pickle
from hybrid_mm.checkpoint_files.shards import files_of_index

_TORCH_MAGIC = bytes.fromhex('6cfc9c46f9206aa85019')  # in the first pickle of torch's older format
_LFS = b'version https://git-lfs'
_IMAGES = {b'\x89PNG': 'PNG', b'\xff\xd8\xff': 'JPEG', b'GIF8': 'GIF', b'II*\0': 'TIFF',
           b'MM\0*': 'TIFF', b'BM': 'BMP'}  # fmt: skip
_OTHERS = {
    b'\x1f\x8b': 'gzip; unpack it first',
    b'BZh': 'bzip2; unpack it first',
    b'\xfd7zXZ': 'xz; unpack it first',
    b'7z\xbc\xaf': '7-Zip; unpack it first',
    b'Rar!': 'RAR; unpack it first',
    b'(\xb5/\xfd': 'Zstandard; unpack it first',
    b'\x89HDF': 'HDF5, as Keras writes it; only weights of PyTorch can be read',
    b'\x93NUMPY': 'a single NumPy array; named arrays are read from an .npz',
    b'%PDF': 'PDF',
    b'\x7fELF': 'a program',
}


def no_regular_file(mode: int) -> str | None:
    """What a path is that cannot be read as a file, from ``st_mode``; None for a file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return 'a folder'
    if stat.S_ISFIFO(mode):
        return 'a named pipe'
    return 'a socket' if stat.S_ISSOCK(mode) else 'a device'


def kind_of(path: str | os.PathLike[str]) -> str:
    """Which of the readers a regular file is for.

    Returns:
        'torch' (also for what is damaged or no checkpoint at all), 'safetensors', 'npz', 'pickle'
        (one that torch did not write), 'flax' or 'index' (of several files).

    Raises:
        OSError: It cannot be opened.
        ValueError: It is an index that names files elsewhere.
    """
    with open(path, 'rb') as file:
        head = file.read(512)
    if head.startswith(b'PK'):
        return 'npz' if _is_npz(_names(path)) else 'torch'
    if head[257:262] == b'ustar' or _TORCH_MAGIC in head[:40]:
        return 'torch'
    if _is_safetensors(head, os.path.getsize(path)):
        return 'safetensors'
    if head[:1] == b'{':
        return 'torch' if files_of_index(path) is None else 'index'
    if is_pickle(head):
        return 'pickle'
    return 'flax' if is_msgpack(head) else 'torch'


def foreign(path: str | os.PathLike[str]) -> str | None:
    """What a regular file is, and what to do about it, if it is no checkpoint that can be read.

    Args:
        path: The file.

    Returns:
        A phrase such as 'an image (PNG)', or None if it can be a checkpoint, whole or damaged.

    Raises:
        OSError: It cannot be opened.
    """
    if kind_of(path) != 'torch':
        return None
    with open(path, 'rb') as file:
        head = file.read(512)
    if not head.strip(b'\0'):
        return 'zero bytes only at its beginning' if head else 'empty'
    if head.startswith(b'PK'):
        return _foreign_zip(path)
    if head[257:262] == b'ustar':
        return _tar(path)
    if _TORCH_MAGIC in head[:40]:
        return None
    unknown = 'of no format that can be read: another kind of file, or a damaged one'
    return _known(head) or _text(head) or unknown


def _is_safetensors(head: bytes, size: int) -> bool:
    return 2 <= int.from_bytes(head[:8], 'little') <= size and head[8:9] == b'{'


def _names(path: str | os.PathLike[str]) -> list[str]:
    """Names in a zip archive; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # damaged archives raise anything
        return []


def _is_npz(names: list[str]) -> bool:
    return bool(names) and all(name.endswith('.npy') for name in names)


def _known(head: bytes) -> str | None:
    for start, name in _IMAGES.items():
        if head.startswith(start):
            return f'an image ({name})'
    if head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        return 'an image (WebP)'
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f'of another format ({name})'
    if head[0] == 8 and (b'pytorch' in head[:40] or b'onnx' in head[:40]):
        return 'an ONNX model; only weights of PyTorch can be read'
    return None


def _text(head: bytes) -> str | None:
    """Name what is readable text; the last characters may be cut in two."""
    text = head.decode('utf-8-sig', 'ignore')
    if len(text.encode()) < len(head) - 6 or not all(c.isprintable() or c.isspace() for c in text):
        return None
    if head.startswith(_LFS):
        return 'a pointer of Git LFS; fetch the file itself with `git lfs pull`'
    start = text.lstrip().lower()
    if start.startswith(('<!doctype html', '<html', '<head', '<?xml')):
        return 'a web page, perhaps an error message that was saved in place of the download'
    line = (text.strip().splitlines() or [''])[0]
    return f'text, which begins with {line[:40]!r}'


def _foreign_zip(path: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged archives raise anything
        return None
    inner = {name.partition('/')[2] for name in names}
    if 'constants.pkl' in inner or any(name.startswith('code/') for name in inner):
        return (
            'a TorchScript archive, which holds code; save the weights of the model that '
            'torch.jit.load returns, with torch.save(model.state_dict(), ...)'
        )
    if 'data.pkl' in inner or 'version' in inner:  # one of them may be damaged
        return None
    some = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    return f'a zip archive of other files ({some or "it is empty"}); unpack it first'


def _tar(path: str | os.PathLike[str]) -> str | None:
    try:
        with tarfile.open(path) as archive:
            names = [member.name for _, member in zip(range(4), archive, strict=False)]
    except Exception:  # damaged archives raise anything
        return None
    if {'sys_info', 'storages'} & {Path(name).name for name in names}:
        return 'of the format of torch 0.1; save it again with a version of torch that reads it'
    return f'a tar archive ({", ".join(names[:3])}); unpack it first'
