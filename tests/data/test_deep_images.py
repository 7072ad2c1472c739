"""Images of more than 8 bits and of one channel: read in full, and told from others."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DefaultScope
from PIL import Image

from hybrid_mm.data import CheckedDataset, deep_images
from hybrid_mm.data.deep_images import LoadDeepImage, decode, depth_of, is_deep, warn_of_dark
from hybrid_mm.errors import UserError

GREY = np.arange(4096, dtype=np.uint16).reshape(64, 64)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], 2)
EIGHT = (COLOUR // 16).astype(np.uint8)


def load(path, **settings):
    return LoadDeepImage(**settings)(dict(img_path=str(path)))


def test_twelve_bits_in_sixteen(tmp_path):
    """By hand: 4095 becomes 255, 2048 becomes 127.53."""
    for name, image in (('a.png', GREY), ('a.tif', GREY), ('b.png', COLOUR), ('b.tiff', COLOUR)):
        cv2.imwrite(str(tmp_path / name), image)
        found = load(tmp_path / name, value_range=(0, 4095))
        expected = np.rint(image.reshape(64, 64, -1) / 4095 * 255).astype(np.uint8)
        np.testing.assert_array_equal(found['img'], np.broadcast_to(expected, (64, 64, 3)))
        assert found['img_shape'] == found['ori_shape'] == (64, 64)
        assert found['img'].dtype == np.uint8
    clipped = load(tmp_path / 'a.png', value_range=(1000, 2000))['img'][..., 0]
    assert (clipped[GREY <= 1000] == 0).all() and (clipped[GREY >= 2000] == 255).all()
    cv2.imwrite(str(tmp_path / 'c.png'), np.dstack([COLOUR, GREY]))  # transparency
    found = load(tmp_path / 'c.png', value_range=(0, 4095))['img']
    np.testing.assert_array_equal(found, load(tmp_path / 'b.png', value_range=(0, 4095))['img'])
    values = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / 'd.tif')
    found = load(tmp_path / 'd.tif', value_range=(-1, 1))['img']
    assert (found.min(), found.max(), found[0, 0, 0]) == (0, 255, 0)


def test_eight_bits_are_read_as_ever(tmp_path):
    rgba = np.dstack([EIGHT, EIGHT[..., 0]])
    for name, image in (
        ('a.png', EIGHT),
        ('b.jpg', EIGHT),
        ('c.png', EIGHT[..., 0]),
        ('d.png', rgba),
        ('e.tif', EIGHT),
    ):
        cv2.imwrite(str(tmp_path / name), image)
    Image.fromarray(EIGHT).convert('P', palette=Image.Palette.ADAPTIVE).save(tmp_path / 'f.png')
    turned = Image.new('RGB', (20, 10))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / 'g.jpg', exif=turned.getexif())
    usual = LoadImageFromFile()
    for path in sorted(tmp_path.iterdir()):
        found, expected = (
            step(dict(img_path=str(path))) for step in (LoadDeepImage((0, 4095)), usual)
        )
        np.testing.assert_array_equal(found['img'], expected['img'])
        assert found['ori_shape'] == expected['ori_shape']


def test_what_is_no_image(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    (tmp_path / 'b.png').write_text('text')
    for name in ('a.png', 'b.png'):
        with pytest.raises(ValueError, match=rf'{name} is not an image'):
            load(tmp_path / name, value_range=(0, 1))
    with pytest.raises(ValueError, match=r'low < high, got \(3, 3\)'):
        LoadDeepImage((3, 3))
    with pytest.raises(ValueError, match='x is not an image'):
        decode(b'x' * 9, 'x')


def test_ranges(tmp_path):
    """A pixel or two do not count, and black stays black, unless there is nothing dark."""
    image = GREY.copy()
    image[0, :2] = 65535  # a thousandth is four of 4096
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    found = depth_of([str(tmp_path / 'a.png')])
    assert (found.bits, found.number, found.grey) == (16, 1, True)
    assert found.value_range[0] == 0 and 4085 < found.value_range[1] <= 4096
    cv2.imwrite(str(tmp_path / 'b.png'), GREY // 8 + 28_000)  # a thermal camera
    low, high = depth_of([str(tmp_path / 'b.png')]).value_range
    assert 28_000 <= low <= 28_001 and 28_510 <= high <= 28_511
    cv2.imwrite(str(tmp_path / 'c.png'), COLOUR)
    assert not depth_of([str(tmp_path / 'a.png'), str(tmp_path / 'c.png')]).grey
    cv2.imwrite(str(tmp_path / 'd.png'), np.zeros((4, 4), np.uint16))
    assert depth_of([str(tmp_path / 'd.png')]).value_range == (0, 1)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / 'e.tif')
    assert depth_of([str(tmp_path / 'e.tif')]).value_range == (0.5, 1.5)
    cv2.imwrite(str(tmp_path / 'f.png'), EIGHT[..., 0])
    cv2.imwrite(str(tmp_path / 'g.tif'), EIGHT)
    for name in 'f.png', 'g.tif':
        found = depth_of([str(tmp_path / name)])
        assert (found.bits, found.value_range) == (8, None)
    assert not is_deep(str(tmp_path / 'f.png')) and not is_deep(str(tmp_path / 'none'))
    assert depth_of([]).grey is False


def test_dark_images_are_named_once(tmp_path, capsys):
    deep_images._looked.clear()
    for folder, image in (('a', GREY), ('b', GREY * 16), ('c', EIGHT)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            cv2.imwrite(str(tmp_path / folder / f'{number}.png'), image)
    for number in range(6):
        for folder in 'abc':
            warn_of_dark(str(tmp_path / folder / f'{number}.png'))
    (line,) = capsys.readouterr().err.splitlines()
    assert 'a/0.png has 16 bits per channel but no value above 4095' in line
    assert (
        "(0 to 15). Load it with dict(type='hybrid_mm.LoadDeepImage', value_range=(0, 409" in line
    )


@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'hybrid_mm.LoadDeepImage'])
def test_training_says_that_images_are_dark(loader, tmp_path, capsys):
    """Unless they are loaded as they should be; missing files are found in either case."""
    deep_images._looked.clear()
    for folder, image in (('images', GREY), ('maps', EIGHT[..., 0] % 2)):
        (tmp_path / folder).mkdir()
        for number in range(2):
            cv2.imwrite(str(tmp_path / folder / f'{number}.png'), image)
    step = dict(type=loader, **({'value_range': (0, 4095)} if 'Deep' in loader else {}))
    settings = dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('a', 'b')),
        img_suffix='.png',
        seg_map_suffix='.png',
        data_prefix=dict(img_path=str(tmp_path / 'images'), seg_map_path=str(tmp_path / 'maps')),
        pipeline=[step, dict(type='LoadAnnotations')],
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = CheckedDataset(dict(settings))
    images = [data[number]['img'] for number in range(2)]
    assert images[0].max() == (255 if 'Deep' in loader else 15)
    assert capsys.readouterr().err.count('no value above 4095') == ('Deep' not in loader)
    (tmp_path / 'list.txt').write_text('0\n1\n2\n')
    with (
        DefaultScope.overwrite_default_scope('mmseg'),
        pytest.raises(UserError, match='1 of 3 images do not exist'),
    ):
        CheckedDataset(dict(settings, ann_file=str(tmp_path / 'list.txt')))


def test_colours_to_numbers(tmp_path, monkeypatch):
    """The lines of docs/getting_started.md."""
    page = (Path(__file__).parents[2] / 'docs/getting_started.md').read_text()
    section = page[page.index('**From colours to numbers**') :]
    code = section.split('```python\n')[1].split('```')[0]
    colours = np.array([[128, 128, 128], [128, 0, 0], [192, 192, 128], [1, 2, 3]], np.uint8)
    labels = np.arange(24).reshape(4, 6) % 4
    for folder in ('coloured', 'annotations'):
        (tmp_path / folder).mkdir()
    Image.fromarray(colours[labels]).save(tmp_path / 'coloured/a.png')
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = np.asarray(Image.open(tmp_path / 'annotations/a.png'))
    np.testing.assert_array_equal(found, np.where(labels == 3, 255, labels))
