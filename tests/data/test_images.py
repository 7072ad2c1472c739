"""Images of a folder."""

import pytest

from hybrid_mm.data.images import count_frames, find_images
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


def test_links_in_a_circle(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/a.png').write_bytes(b'')
    (tmp_path / 'sub/up').symlink_to(tmp_path)
    (tmp_path / 'same').symlink_to(tmp_path / 'sub')
    assert find_images(tmp_path) == [tmp_path / 'sub/a.png']


def test_images_that_a_tool_wrote_itself(tmp_path):
    for name in ('a.png', 'erf.png'):
        (tmp_path / name).write_bytes(b'')
    other = tmp_path / 'sub' / '..' / 'erf.png'
    assert find_images(tmp_path, without=[other]) == [tmp_path / 'a.png']
    assert find_images(tmp_path / 'erf.png', without=[other]) == [tmp_path / 'erf.png']


def test_frames_of_a_file(tmp_path):
    from PIL import Image

    frames = [Image.new('RGB', (4, 4), (90 * i, 0, 0)) for i in range(3)]
    for name, several in (('a.gif', 3), ('a.png', 3), ('a.tif', 3), ('a.webp', 3), ('b.png', 1)):
        more = dict(save_all=True, append_images=frames[1:]) if several > 1 else {}
        frames[0].save(tmp_path / name, **more)
        assert count_frames(tmp_path / name) == several
    (tmp_path / 'c.png').write_bytes((tmp_path / 'a.png').read_bytes()[:20])
    for name in ('c.png', 'none.png'):
        assert count_frames(tmp_path / name) == 1
