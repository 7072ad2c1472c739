"""Loading of local checkpoint files, for MMEngine and for ourselves; what is damaged is refused."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from hybrid_mm.checkpoint_files.failures import (
    CheckpointError,
    MissingCheckpointError,
    checkpoints_in,
)
from hybrid_mm.checkpoint_files.file_state import identity
from hybrid_mm.checkpoint_files.flax_files import read_msgpack
from hybrid_mm.checkpoint_files.integrity import (
    covers_all,
    damage_of_archive,
    matches,
)
from hybrid_mm.checkpoint_files.kinds import foreign, kind_of, no_regular_file
from hybrid_mm.checkpoint_files.nesting import has_deep_tuples
from hybrid_mm.checkpoint_files.npz import read_npz
from hybrid_mm.checkpoint_files.pickles import RefusedError, read_pickle
from hybrid_mm.checkpoint_files.shards import files_of_index, read_shards
from hybrid_mm.compat import safe_loading, workarounds
from hybrid_mm.errors import UserError, plain_text

_verified: set[tuple[int, ...]] = set()  # files that need not be verified again
_ORBAX = ('_METADATA', '_CHECKPOINT_METADATA', 'manifest.ocdbt')


def check_exists(path: str) -> None:
    """Check that a checkpoint exists and can be one, from its first bytes, unless it is a URL.

    Args:
        path: A file, or an address, which is not looked at.

    Raises:
        MissingCheckpointError: It does not exist; names the checkpoints in its folder.
        CheckpointError: It cannot be opened, or is a folder, a pipe, an image, a web page, ...
    """
    if '://' in path:
        return
    local = os.path.expanduser(path)
    try:
        mode = os.stat(local).st_mode
        kind = no_regular_file(mode)
        if kind == 'a folder' and any(os.path.exists(f'{local}/{name}') for name in _ORBAX):
            kind = (
                'a folder of Orbax, whose files other programs cannot read; restore it with '
                'orbax.checkpoint and write its parameters to a file with '
                'flax.serialization.msgpack_serialize'
            )
        elif kind == 'a folder' and (names := checkpoints_in(Path(local))):
            kind = f'a folder; name a file in it: {names}'
        elif kind is None:
            kind = foreign(local)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(local):
            target = os.readlink(local)
            raise CheckpointError(path, f'is a link to {target}, which does not exist') from error
        raise MissingCheckpointError(path) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f'cannot be opened: {_reason(error)}') from error
    if kind is not None:
        raise CheckpointError(path, f'cannot be read: it is {kind}')


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint; MMEngine's loaders call it as well.

    What a file is tells its content, not its name: one of ``torch.save``, safetensors or an index
    of several files, a pickle of NumPy arrays (detectron2), an .npz, a checkpoint of Flax. Arrays
    become tensors; nothing in a file can run code.

    The whole file is compared with its checksums once in a process, unless it changes.

    Args:
        filename: The file; ``~`` is the home folder.
        map_location: Device, as of ``torch.load``. On 'meta' only what is no tensor is read from a
            file of torch. Other files are read onto the CPU.

    Raises:
        CheckpointError: It is missing, no checkpoint, damaged, or could run code.
    """
    check_exists(filename)
    path = os.path.expanduser(filename)
    kind = kind_of(path)
    if kind == 'torch':
        return _load_of_torch(filename, path, map_location)
    try:
        if kind == 'index':
            return read_shards(path, files_of_index(path) or {}, load_from_local)
        return _READERS[kind](path)
    except RefusedError as error:
        raise CheckpointError(
            filename,
            f'is a pickle that torch did not write; it names {error}, which was not loaded, and '
            'only NumPy arrays and plain values are read. Weights of other kinds have to be saved '
            'with torch.save',
        ) from None
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise CheckpointError(
            filename, f'needs the package {error.name}; pip install it'
        ) from error
    except Exception as error:  # of what is damaged: any, MemoryError of a size that it declares
        raise _unreadable(filename, error, f'{_KINDS[kind]}: ') from error


def _read_safetensors(path: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


_READERS: dict[str, Callable[[str], Any]] = {
    'safetensors': _read_safetensors,
    'npz': read_npz,
    'pickle': read_pickle,
    'flax': read_msgpack,
}
_KINDS = {
    'safetensors': 'safetensors',
    'npz': 'NumPy archive',
    'pickle': 'pickle of arrays',
    'flax': 'Flax checkpoint',
    'index': 'index of several files',
}


def _load_of_torch(filename: str, path: str, map_location: Any) -> Any:
    before = identity(os.stat(path))
    if damage := damage_of_archive(path, tensors=False):
        raise _damaged(filename, damage)
    if has_deep_tuples(path):
        raise _damaged(filename, 'it has tuples within tuples without an end')
    try:
        checkpoint = workarounds.load_from_local(path, map_location)
    except safe_loading.NewerTorchError as error:
        raise CheckpointError(
            filename,
            f'holds {error}, which torch {torch.__version__} does not have; load it with a newer '
            'release, or convert it there',
        ) from None
    except Exception as error:  # unpickling what is damaged may raise anything
        unsafe = re.search(rf'holds (.*) that could run code.*{workarounds.TRUST}', str(error))
        if unsafe and (unsafe[1] != 'objects' or zipfile.is_zipfile(path)):
            raise CheckpointError(
                filename,
                f'holds {unsafe[1]} that could run code when loaded, and was not loaded. If you '
                f'trust it, set {workarounds.TRUST}=1 in the environment',
            ) from None
        raise _unreadable(filename, error) from error
    if str(map_location) != 'meta' and before not in _verified:
        _verify(filename, path, checkpoint)
        _verified.add(before)
    return checkpoint


def _verify(filename: str, path: str, checkpoint: Any) -> None:
    whole = isinstance(checkpoint, dict) and covers_all(checkpoint)
    try:
        match = not isinstance(checkpoint, dict) or matches(checkpoint)
    except Exception as error:  # dicts within themselves, tensors far larger than the file
        raise _unreadable(filename, error) from error
    if whole and match:
        return
    if damage := damage_of_archive(path, tensors=True):
        raise _damaged(filename, damage)
    if not match:
        raise CheckpointError(
            filename,
            'does not match its checksum: it is damaged, or was changed after it was saved (if '
            "you changed it, delete its entry 'checksum')",
        )


def _unreadable(filename: str, error: Exception, kind: str = '') -> CheckpointError:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        size = os.path.getsize(os.path.expanduser(filename))
        return CheckpointError(
            filename,
            f'({size} bytes) cannot be read: there is too little memory for what it says it holds',
        )
    return _damaged(filename, kind + _reason(error))


def _damaged(filename: str, detail: str) -> CheckpointError:
    size = os.path.getsize(os.path.expanduser(filename))
    return CheckpointError(
        filename, f'({size} bytes) cannot be read: it is truncated or damaged ({detail})'
    )


def _reason(error: BaseException) -> str:
    """First line of an exception."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (plain_text(error).strip() or type(error).__name__).split('\n')[0]


CheckpointLoader.register_scheme('', load_from_local, force=True)
