"""Files with images of any number of channels: every format gives the numbers that were written."""

import cv2
import numpy as np
import pytest

from hybrid_mm.data.channel_files import ARRAY, channels_first, size_of_array
from hybrid_mm.data.multichannel import read_channels

tifffile = pytest.importorskip('tifffile')


def drawn(channels, dtype, height=20, width=17):
    values = np.random.default_rng(0).random((height, width, channels)) * 200
    return values.astype(dtype)


def write_tiff(path, image, how):
    """Write an image (H, W, C) with its channels as samples, planes or pages."""
    if how == 'pages':
        for number in range(image.shape[2]):
            tifffile.imwrite(path, image[..., number], append=number > 0, photometric='minisblack')
        return
    separate = how == 'planes'
    image = image.transpose(2, 0, 1) if separate else image
    settings = dict(planarconfig='separate' if separate else 'contig', photometric='minisblack')
    if how == 'tiles':
        settings |= dict(tile=(16, 16), compression='zlib')
    tifffile.imwrite(path, image, **settings)


@pytest.mark.parametrize('how', ['samples', 'planes', 'pages', 'tiles'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_tiff(how, dtype, tmp_path):
    """OpenCV gives one of two channels, and none of six."""
    path = str(tmp_path / 'x.tif')
    for channels in (2, 3, 6, 12):
        image = drawn(channels, dtype)
        write_tiff(path, image, how)
        found = read_channels(path)
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, image)
        assert size_of_array(path) == (17, 20)


def test_one_channel(tmp_path):
    image = drawn(1, 'uint16')
    tifffile.imwrite(tmp_path / 'x.tif', image[..., 0])
    np.save(tmp_path / 'x.npy', image[..., 0])
    cv2.imwrite(str(tmp_path / 'x.png'), image[..., 0])
    for name in ('x.tif', 'x.npy', 'x.png'):
        np.testing.assert_array_equal(read_channels(str(tmp_path / name)), image)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_colours_are_in_the_order_of_the_file(dtype, tmp_path):
    """Red, green, blue and alpha, in a PNG file as in a TIFF file."""
    for channels in (3, 4):
        image = drawn(channels, dtype)
        cv2.imwrite(str(tmp_path / 'x.png'), image[..., [2, 1, 0, 3][:channels]])
        np.testing.assert_array_equal(read_channels(str(tmp_path / 'x.png')), image)


def test_arrays(tmp_path):
    """They are (H, W, C), or (C, H, W) if the axes say so; booleans are 0 and 1."""
    path = str(tmp_path / f'x{ARRAY}')
    image = drawn(6, 'float64')
    np.save(path, image)
    np.testing.assert_array_equal(read_channels(path), image)
    assert size_of_array(path) == (17, 20)
    np.save(path, image.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_channels(path, 'chw'), image)
    assert size_of_array(path) == (17, 20)
    np.save(path, image[..., 0] > 100)
    assert read_channels(path).dtype == np.uint8
    assert channels_first((6, 20, 17)) and not channels_first((20, 17, 6))


def test_cut_files(tmp_path):
    """Wherever a file ends, it is an error that names it, and never an image with zeros."""
    image = drawn(6, 'uint16', 32, 32)
    np.save(tmp_path / 'x.npy', image)
    for name in ('x.npy', *(f'{how}.tif' for how in ('samples', 'planes', 'pages', 'tiles'))):
        if name.endswith('.tif'):
            write_tiff(tmp_path / name, image, name[:-4])
        content = (tmp_path / name).read_bytes()
        for length in (0, 1, 8, 70, len(content) // 2, len(content) - 1):
            path = tmp_path / f'cut{name[-4:]}'
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=path.name):
                read_channels(str(path))


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (np.array([{}]), 'x.npy cannot be read as an array'),
        (np.array(['a']), 'expected an array of numbers'),
        (np.zeros((2, 3, 4, 5)), r'has the shape \(2, 3, 4, 5\)'),
        (np.zeros((0, 3)), r'has the shape \(0, 3\)'),
    ],
)
def test_arrays_that_are_no_images(content, text, tmp_path):
    np.save(tmp_path / 'x.npy', content)
    with pytest.raises(ValueError, match=text):
        read_channels(str(tmp_path / 'x.npy'))


def test_other_files(tmp_path, monkeypatch):
    tifffile.imwrite(
        tmp_path / 'x.tif', np.zeros((3, 4, 20, 30), 'uint8'), photometric='minisblack'
    )
    with pytest.raises(ValueError, match=r'x.tif.*axes \w\wYX of lengths \(3, 4, 20, 30\)'):
        read_channels(str(tmp_path / 'x.tif'))
    (tmp_path / 'x.png').write_text('no image')
    for name, text in (('x.png', 'nor an image'), ('none.npy', 'No such file'), ('.', 'directory')):
        with pytest.raises(ValueError, match=text):
            read_channels(str(tmp_path / name))
    monkeypatch.setattr('hybrid_mm.data.channel_files.find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'hybrid-mm\[multichannel\]'"):
        read_channels(str(tmp_path / 'x.tif'))
