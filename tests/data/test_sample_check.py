"""Whole and truncated files, beside what decoders say; pairs of images and label maps."""

import io
import random
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from hybrid_mm.data.sample_check import check_file_end, files_below, is_hidden, one_label, read_pair

RNG = np.random.default_rng(3)
PICTURE = cv2.resize(RNG.integers(0, 255, (12, 16, 3), dtype=np.uint8), (160, 120))


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


def with_fill_bytes(data):
    """JPEG with three bytes 0xFF before the markers of the header and the end."""
    out, at = data[:2], 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        out, at = out + b'\xff' * 3 + data[at : at + length], at + length
    return out + data[at:-2] + b'\xff' * 3 + data[-2:]


def with_thumbnail(data):
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(data) + 2) + data + data[2:]


def with_scan_data_like_an_end(data):
    """A comment between the scans that holds the mark of an end."""
    scan = data.rindex(b'\xff\xda')
    comment = b'\xff\xfe' + struct.pack('>H', 6) + b'\xff\xd9\xff\xd9'
    return data[:scan] + comment + data[scan:]


def two_images():
    file = io.BytesIO()
    image = Image.fromarray(PICTURE)
    image.save(file, 'MPO', save_all=True, append_images=[image])
    return file.getvalue()


JPEG, PROGRESSIVE = encoded('JPEG'), encoded('JPEG', progressive=True, quality=95)
FILES = {
    'jpeg': JPEG,
    'progressive': PROGRESSIVE,
    'restart marks': encoded('JPEG', restart_marker_blocks=3),
    'exif': encoded('JPEG', exif=b'Exif\0\0' + bytes(200)),
    'fill bytes': with_fill_bytes(JPEG),
    'thumbnail': with_thumbnail(JPEG),
    'an end in a comment': with_scan_data_like_an_end(PROGRESSIVE),
    'png': encoded('PNG'),
    'png in many chunks': encoded('PNG', pnginfo=None, compress_level=0),
}


def decoded(data):
    """What both decoders see."""
    Image.open(io.BytesIO(data)).load()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == PICTURE.shape
    return image


@pytest.mark.parametrize('name', FILES)
def test_good_files_whatever_follows_them(name, tmp_path):
    data, path, rng = FILES[name], tmp_path / 'a', random.Random(name)
    whole = decoded(data)
    tails = [b'', b'\0', b'\xff\xd9', b'\xff', JPEG[:99], bytes(9000)]
    for tail in tails + [rng.randbytes(rng.randint(1, 9000)) for _ in range(40)]:
        path.write_bytes(data + tail)
        check_file_end(str(path))
    np.testing.assert_array_equal(decoded(data + tail), whole)


@pytest.mark.parametrize('name', FILES)
def test_cuts_are_found(name, tmp_path):
    data, path, rng = FILES[name], tmp_path / 'a', random.Random(name)
    places = [*range(9), *range(len(data) - 9, len(data))]
    number = 200 if name in ('jpeg', 'png') else 40
    for at in places + [rng.randrange(len(data)) for _ in range(number)]:
        path.write_bytes(data[:at])
        with pytest.raises(ValueError, match=rf'a is truncated \({at} bytes\)'):
            check_file_end(str(path))


def test_the_end_of_a_thumbnail_is_not_that_of_the_image(tmp_path):
    (tmp_path / 'a').write_bytes(FILES['thumbnail'][: len(JPEG) + 6])
    with pytest.raises(ValueError, match='is truncated'):
        check_file_end(str(tmp_path / 'a'))


def test_a_second_image_in_the_file_is_not_looked_at(tmp_path):
    data = two_images()
    first = data.index(b'\xff\xd9') + 2
    (tmp_path / 'a').write_bytes(data)
    check_file_end(str(tmp_path / 'a'))
    (tmp_path / 'a').write_bytes(data[: (first + len(data)) // 2])
    decoded(data[: (first + len(data)) // 2])
    check_file_end(str(tmp_path / 'a'))


def test_other_formats_are_left_to_decoders(tmp_path):
    for data in (encoded('BMP')[:-5], b'\xff\xd8', b'GIF89a', b'x'):
        (tmp_path / 'a').write_bytes(data)
        if data == b'\xff\xd8':
            with pytest.raises(ValueError, match='truncated'):
                check_file_end(str(tmp_path / 'a'))
        else:
            check_file_end(str(tmp_path / 'a'))


def test_hidden():
    for path in ('._0.png', 'a/.b/0.png', '.ipynb_checkpoints/0.png', '__MACOSX/x/0.png', 'a/._b'):
        assert is_hidden(path), path
    for path in ('0.png', './0.png', '../x/0.png', 'a.b/0._png', 'MACOSX/0.png', '/a/0.png'):
        assert not is_hidden(path), path


def test_files_below(tmp_path):
    for name in ('a/0.png', 'a/.1.png', 'b.png', '.c/2.png', '__MACOSX/3.png'):
        (tmp_path / 'x' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'x' / name).write_bytes(b'')
    (tmp_path / 'x/a/circle').symlink_to(tmp_path / 'x')
    (tmp_path / 'x/link').symlink_to(tmp_path / 'x/.c')
    assert sorted(files_below(tmp_path / 'x')) == ['a/0.png', 'b.png', 'link/2.png']


def test_pairs(tmp_path):
    """The image is turned upright, as when it is read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image, labels = tmp_path / 'a.jpg', tmp_path / 'a.png'
    Image.fromarray(PICTURE).save(image, exif=exif)
    Image.fromarray(np.full((160, 120), 7, np.uint8)).save(labels)
    found, size = read_pair(str(image), str(labels))
    assert size == (120, 160) and found.shape == (160, 120) and set(found.ravel()) == {7}
    Image.fromarray(PICTURE).save(image)
    with pytest.raises(ValueError, match=r'a\.png has 160 x 120 pixels .*the image 120 x 160'):
        read_pair(str(image), str(labels))
    labels.write_text('no image')
    with pytest.raises(ValueError, match=r'a\.png cannot be read as an image'):
        read_pair(str(image), str(labels))
    image.unlink()
    with pytest.raises(ValueError, match=r'a\.jpg does not exist'):
        read_pair(str(image), str(labels))


def test_one_label():
    assert one_label({0, 1}, 255, 2) is None
    assert one_label({0}, 255, 1) is None
    assert one_label({3}, 255, 4).startswith('3 and 255 only')
    assert one_label(set(), 255, 2).startswith('nothing but ignored')
    assert one_label({0}, None, 2) == 'the label 0 only, one of 2 classes'
    assert 'reduce_zero_label=True' in one_label({0}, 255, 2, shifted=True)
