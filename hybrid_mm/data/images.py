"""Files of images."""

from pathlib import Path

from hybrid_mm.errors import UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def find_images(path: str | Path) -> list[Path]:
    """The image itself, or all images below a folder, sorted.

    Raises:
        UserError: there is no such file or folder, or no image in it.
    """
    source = Path(path)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f'{path} does not exist; expected an image or a folder of images')
    files = sorted(file for file in source.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f'{path} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    return files
