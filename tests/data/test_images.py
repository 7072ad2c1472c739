"""Images of a folder."""

import pytest

from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError


def test_images_of_a_folder(tmp_path):
    names = ('b.JPG', 'sub/a.png', 'c.Tiff', 'a.jpeg', 'sub/z.webp', 'd.bmp')
    for name in (*names, 'x.txt', 'sub/y.pngx', 'jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    expected = ('a.jpeg', 'b.JPG', 'c.Tiff', 'd.bmp', 'sub/a.png', 'sub/z.webp')
    assert find_images(tmp_path) == [tmp_path / name for name in expected]
    assert find_images(tmp_path / 'x.txt') == [tmp_path / 'x.txt']  # named: taken as it is
    with pytest.raises(UserError, match=r'none does not exist'):
        find_images(tmp_path / 'none')
