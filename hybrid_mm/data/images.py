"""Search for image files."""

from pathlib import Path

from hybrid_mm.errors import UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def find_images(path: str | Path) -> list[Path]:
    """Return the image itself as a list, or all images below a folder, sorted.

    Raises:
        UserError: The path does not exist, or the folder holds no images.
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
