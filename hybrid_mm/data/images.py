"""Search for image files, and what a decoder leaves out of one."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from hybrid_mm.data.channel_files import ARRAY
from hybrid_mm.errors import UserError, warn

IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'),
    '.gif',
)
RESULTS_FILE = 'predictions.json'
RESULTS_FOLDERS = ('pictures', 'label_maps', 'videos')
"""What ``hybrid_mm.apis.Writer`` writes into a folder."""

_MULTIPLE = (b'GIF8', b'\x89PNG', b'RIFF', b'II*\0', b'MM\0*')  # formats that may have many frames


def find_images(path: str | Path, without: Iterable[str | Path] = ()) -> list[Path]:
    """Return the image itself as a list, or all images below a folder, sorted.

    Links are followed, every folder once. Arrays (``.npy``) count where there are no images. Left
    out are files of macOS that have the name of an image (``._a.jpg``) and, with a warning,
    pictures that ``tools/predict.py`` wrote. What cannot be opened is in the list: whoever reads it
    says so.

    Args:
        path: The image or folder.
        without: Files that are left out.

    Raises:
        UserError: The path does not exist, or the folder holds neither images nor arrays.
    """
    source = Path(path)
    if source.is_file():
        return [source]
    if not source.is_dir():
        there = 'is neither an image nor a folder' if os.path.exists(path) else 'does not exist'
        link = f'; it is a link to {os.readlink(path)}' if source.is_symlink() else ''
        raise UserError(f'{path} {there}{link}; expected an image or a folder of images')
    apart = {os.path.abspath(file) for file in without}
    files = sorted(file for file in _walk(source) if os.path.abspath(file) not in apart)
    files = [file for file in files if file.suffix.lower() != ARRAY] or files
    if not files:
        raise UserError(f'{path} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    return files


def _walk(root: Path) -> Iterator[Path]:
    """Images below a folder, and folders there that cannot be read."""
    closed: list[OSError] = []
    seen = set()
    links = [str(root)]  # followed after the folders themselves, whose names are better
    for start in links:
        for folder, folders, files in os.walk(start, onerror=closed.append):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link to where we are, or have been
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            yield from _images_of(folder, folders, files)
            paths = [os.path.join(folder, name) for name in sorted(folders)]
            links += [path for path in paths if os.path.islink(path)]
    yield from (Path(error.filename) for error in closed)


def _images_of(folder: str, folders: list[str], files: list[str]) -> Iterator[Path]:
    """Images in one folder; folders of results are removed from the list of those below."""
    if RESULTS_FILE in files and (own := set(RESULTS_FOLDERS).intersection(folders)):
        folders[:] = [name for name in folders if name not in own]
        warn(
            f'{folder} has results of tools/predict.py ({RESULTS_FILE}); its '
            f'{" and ".join(sorted(own))} are not used as inputs'
        )
    for name in files:
        if name.lower().endswith((*IMAGE_SUFFIXES, ARRAY)) and not name.startswith('._'):
            yield Path(folder, name)


def count_frames(path: str | Path) -> int:
    """Number of frames or pages of an image file, of which decoders give the first.

    It is 1 for a file that cannot be read.
    """
    try:
        with open(path, 'rb') as file:
            if not file.read(4).startswith(_MULTIPLE):
                return 1
        with Image.open(path) as image:
            return getattr(image, 'n_frames', 1)
    except Exception:  # whatever a decoder raises
        return 1
