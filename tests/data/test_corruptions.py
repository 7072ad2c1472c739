"""Corruptions: the seed decides, and what does not fit is an error."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS, GROUPS, Corrupt, corrupt, names_of


@pytest.fixture(scope='module')
def image():
    """Smooth colours with an edge, 45 x 70."""
    y, x = np.mgrid[:45, :70]
    planes = [x * 3, y * 5, (x > 30) * 180 + 20]
    return np.stack(planes, -1).astype(np.uint8)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_every_corruption(image, name):
    state = np.random.get_state()[1].copy()
    found = [corrupt(image, name, severity, 7) for severity in (1, 5)]
    assert all(x.shape == image.shape and x.dtype == np.uint8 for x in found)
    assert (found[0] != image).any()
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(found[1], corrupt(image, name, 5, 7))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    drawn = name in {
        *GROUPS['noise'],
        'glass_blur',
        'motion_blur',
        'snow',
        'frost',
        'fog',
        'elastic_transform',
        'speckle_noise',
        'spatter',
    }
    assert (corrupt(image, name, 5, 8) != found[1]).any() == drawn


def test_severity_is_monotonic(image):
    for name in ('gaussian_noise', 'gaussian_blur', 'contrast'):
        errors = [np.abs(corrupt(image, name, s).astype(float) - image).mean() for s in range(6)]
        assert errors[0] == 0
        assert errors == sorted(errors)


def test_groups():
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 19
    assert names_of('all') == CORRUPTIONS
    assert names_of('benchmark') == BENCHMARK == CORRUPTIONS[:15]
    assert names_of('weather') == ('snow', 'frost', 'fog', 'brightness')
    assert names_of('fog') == ('fog',)
    with pytest.raises(ValueError, match="no corruption or group 'rain'"):
        names_of('rain')


def test_wrong_input(image):
    with pytest.raises(ValueError, match="no corruption 'rain'"):
        corrupt(image, 'rain', 1)
    with pytest.raises(ValueError, match='severity must be 1 to 5'):
        Corrupt('fog', 6)
    with pytest.raises(ValueError, match=r'of uint8, got .* of float64'):
        corrupt(image.astype(float), 'fog', 1)
    with pytest.raises(ValueError, match='32 x 32 pixels at least, got 20 x 70'):
        corrupt(image[:20], 'fog', 1)
    with pytest.raises(ValueError, match=r'small\.png: fog: images must have'):
        Corrupt('fog')(dict(img=image[:20], img_path='a/small.png'))


def test_grey_images_and_clean_ones(image):
    assert corrupt(image[..., 0], 'fog', 1).shape == image.shape
    results = dict(img=image)
    assert Corrupt('fog', 0)(results)['img'] is image


def run(image, path='x/a.jpg', **kwargs):
    return Corrupt(**kwargs)(dict(img=image.copy(), img_path=path))['img']


def test_draws_depend_on_the_severity(image):
    """Else the noise of an image would be the same but for its strength."""
    noise = [
        run(image, corruption='gaussian_noise', severity=s).astype(float) - image for s in (1, 3)
    ]
    inner = (image > 60) & (image < 190)  # nothing is clipped there
    # the transform of one image for all severities would make them all but proportional
    assert abs(np.corrcoef(noise[0][inner], noise[1][inner])[0, 1]) < 0.2
    names = ('shot_noise', 'gaussian_noise')
    a, b = (run(image, corruption=n, severity=3).astype(float) - image for n in names)
    assert abs(np.corrcoef(a[inner], b[inner])[0, 1]) < 0.2


def test_smallest_images(image):
    for name in ('fog', 'contrast'):
        assert corrupt(image[:32, :32], name, 1).shape == (32, 32, 3)
        for small in (image[:31, :40], image[:40, :31]):
            with pytest.raises(ValueError, match=f'{name}: images must have 32 x 32 pixels'):
                corrupt(small, name, 1)


def test_an_image_as_it_is(image):
    same = corrupt(image, 'fog', 0)
    assert np.array_equal(same, image) and not np.shares_memory(same, image)
    assert np.array_equal(corrupt(image[..., 0], 'fog', 0), np.stack([image[..., 0]] * 3, -1))
    for severity in (1, 2):
        assert (corrupt(image, 'contrast', severity) != image).mean() > 0.5


def test_draws_depend_on_the_name_of_the_image(image):
    settings = dict(corruption='gaussian_noise', severity=3)
    first = run(image, **settings)
    np.testing.assert_array_equal(first, run(image, 'elsewhere/a.jpg', **settings))
    assert (first != run(image, 'x/b.jpg', **settings)).any()
    assert (first != run(image, seed=1, **settings)).any()


def test_order_of_the_channels(image):
    for name, same in (('contrast', True), ('frost', False)):
        plain = run(image, corruption=name, severity=2)
        turned = run(image, corruption=name, severity=2, to_rgb=True)
        assert (plain == turned).all() == same
        expected = run(image[..., ::-1], corruption=name, severity=2)[..., ::-1]
        np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_in_pipelines(image, scope):
    with DefaultScope.overwrite_default_scope(scope):
        for name in ('hybrid_mm.Corrupt', 'Corrupt'):
            transform = TRANSFORMS.build(dict(type=name, corruption='fog', severity=2))
            assert (transform(dict(img=image))['img'] != image).any()
    assert repr(transform).startswith("Corrupt(corruption='fog', severity=2")


def test_missing_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
    with pytest.raises(ImportError, match=r"pip install 'hybrid-mm\[analysis\]'"):
        Corrupt('fog')
