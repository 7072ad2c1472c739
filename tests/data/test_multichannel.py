"""Loading images of any number of channels, and pictures of them."""

import cv2
import numpy as np
import pytest
from mmengine import fileio

from hybrid_mm.data.multichannel import (
    PICTURES_BACKEND,
    LoadMultichannelImage,
    ShowChannels,
    to_picture,
)


def saved(path, image):
    np.save(path, image)
    return dict(img_path=str(path))


def image_of(channels, dtype='uint16'):
    return (np.random.default_rng(1).random((20, 30, channels)) * 60_000).astype(dtype)


def test_all_channels_or_some(tmp_path):
    """uint8 stays, all else becomes float32 with the same values; channels are picked in order."""
    image = image_of(6)
    sample = saved(tmp_path / 'x.npy', image)
    found = LoadMultichannelImage(6)(sample)
    assert found['img'].dtype == np.float32 and found['img'].flags.c_contiguous
    assert found['img_shape'] == found['ori_shape'] == (20, 30)
    np.testing.assert_array_equal(found['img'], image)
    some = LoadMultichannelImage([5, 0, 2])(sample)['img']
    np.testing.assert_array_equal(some, image[..., [5, 0, 2]])
    bytes_ = saved(tmp_path / 'y.npy', image.astype('uint8'))
    assert LoadMultichannelImage(6)(bytes_)['img'].dtype == np.uint8
    np.testing.assert_array_equal(
        LoadMultichannelImage([5]).from_array(image)['img'], some[..., :1]
    )


def test_several_files(tmp_path):
    """Their channels follow; the names are those of the image."""
    for folder in ('rgb/train', 'ir/train'):
        (tmp_path / folder).mkdir(parents=True)
    rgb, ir = image_of(3, 'uint8'), image_of(1)
    cv2.imwrite(str(tmp_path / 'rgb/train/a.png'), rgb[..., ::-1])
    np.save(tmp_path / 'ir/train/a.npy', ir)
    load = LoadMultichannelImage(4, others=['../../ir/{folder}/{stem}.npy'])
    sample = dict(img_path=str(tmp_path / 'rgb/train/a.png'))
    np.testing.assert_array_equal(load(sample)['img'], np.concatenate([rgb, ir], 2))
    twice = LoadMultichannelImage(6, others=['{name}'])(sample)['img']
    assert twice.shape[2] == 6 and twice.dtype == np.uint8
    np.save(tmp_path / 'ir/train/a.npy', ir[:10])
    with pytest.raises(ValueError, match=r'a.npy has 10 x 30 pixels.*a.png 20 x 30'):
        load(sample)
    (tmp_path / 'ir/train/a.npy').unlink()
    with pytest.raises(ValueError, match=r'ir/train/a.npy cannot be read'):
        load(sample)


@pytest.mark.parametrize(
    ('settings', 'shape', 'text'),
    [
        (dict(channels=4), (20, 30, 6), 'x.npy has 6 channels; expected 4; channels='),
        (dict(channels=8), (20, 30, 6), 'x.npy has 6 channels; expected 8$'),
        (dict(channels=[0, 6]), (20, 30, 6), 'expected at least 7'),
        (dict(channels=6), (6, 20, 30), "30 channels; expected 6; if 6 .* set axes='chw'"),
        (dict(channels=[0, 1]), (6, 20, 30), "6 x 20 pixels .* 30 channels; .* axes='chw'"),
        (dict(channels=6, axes='chw'), (20, 30, 6), "expected 6; if 6 .* set axes='hwc'"),
    ],
)
def test_other_channels(settings, shape, text, tmp_path):
    sample = saved(tmp_path / 'x.npy', np.zeros(shape, 'uint8'))
    with pytest.raises(ValueError, match=text):
        LoadMultichannelImage(**settings)(sample)


def test_values_that_are_no_numbers(tmp_path):
    image = image_of(2, 'float32')
    image[3, 4, 1], image[0, 0, 0] = np.nan, np.inf
    sample = saved(tmp_path / 'x.npy', image)
    with pytest.raises(ValueError, match=r'x.npy has 2 values that are not finite.*fill=0'):
        LoadMultichannelImage(2)(sample)
    found = LoadMultichannelImage(2, fill=-1)(sample)['img']
    assert found[3, 4, 1] == found[0, 0, 0] == -1 and found[3, 4, 0] == image[3, 4, 0]


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(channels=0), 'channels must be'),
        (dict(channels=True), 'channels must be'),
        (dict(channels=[0, -1]), 'channels must be'),
        (dict(channels=3, axes='cwh'), "axes must be 'hwc' or 'chw'"),
        (dict(channels=3, others='x'), 'others must be a list'),
        (dict(channels=3, picture=[0, 3, 1]), 'picture must be one or three'),
        (dict(channels=3, picture=[0, 1]), 'picture must be one or three'),
    ],
)
def test_wrong_arguments(settings, text):
    with pytest.raises(ValueError, match=text):
        LoadMultichannelImage(**settings)


def test_picture():
    """Bytes stay; other values are stretched per channel; the first channel is drawn as red."""
    image = image_of(6, 'uint8')
    np.testing.assert_array_equal(to_picture(image), image[..., [2, 1, 0]])
    np.testing.assert_array_equal(to_picture(image, [5]), image[..., [5, 5, 5]])
    np.testing.assert_array_equal(to_picture(image[..., :2]), image[..., [0, 0, 0]])
    deep = np.linspace(1000, 5000, 10_000).reshape(100, 100, 1) * [1, 10, 0]
    deep[0, 0, 0] = np.nan
    blue, green, red = np.moveaxis(to_picture(deep), -1, 0)
    assert not blue.any()  # constant
    np.testing.assert_allclose(green[50, ::33], [127, 128, 129, 129], atol=1)
    np.testing.assert_array_equal(red.ravel()[[0, 100, -101, -1]], [0, 0, 255, 255])
    load = LoadMultichannelImage(6, picture=[3, 4, 5])
    np.testing.assert_array_equal(load.to_picture(image), image[..., [5, 4, 3]])


def test_files_as_pictures(tmp_path):
    """What visualization hooks and the browser of data sets get."""
    image = image_of(6, 'uint8')
    sample = saved(tmp_path / 'x.npy', image)
    args = dict(backend=PICTURES_BACKEND, loader=dict(channels=6, picture=[1, 2, 3]))
    for path in (sample['img_path'], sample['img_path'] + '.png'):
        content = fileio.get(path, backend_args=args)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture, image[..., [3, 2, 1]])
    shown = ShowChannels([1, 2, 3])(dict(img=image, img_path='x.npy'))
    np.testing.assert_array_equal(shown['img'], picture)
    assert shown['img_path'] == 'x.npy.png'
