"""Reader of NumPy's archives (.npz), as google-research publishes its ViTs."""

import io
import zipfile
from typing import Any

import numpy as np

from hybrid_mm.checkpoint_files.arrays import tensor_of
from hybrid_mm.checkpoint_files.integrity import check_ratio


def read_npz(path: str) -> dict[str, Any]:
    """Read the arrays of an archive by their names, which may have slashes, as tensors.

    Raises:
        ValueError: An array holds Python objects or records, or the archive is a bomb.
        Exception: It is damaged: any.
    """
    found = {}
    with zipfile.ZipFile(path) as archive:
        parts = [part for part in archive.infolist() if part.filename.endswith('.npy')]
        check_ratio(parts)
        for part in parts:
            found[part.filename.removesuffix('.npy')] = _array(archive.read(part))
    return found


def _array(data: bytes) -> Any:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f'an array of version {version} of the format')
    shape, fortran, dtype = read(file)
    return tensor_of(memoryview(data)[file.tell() :], dtype.str, shape, 'F' if fortran else 'C')
