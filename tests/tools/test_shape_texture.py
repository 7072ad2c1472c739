"""tools/analysis/shape_texture.py and texture_knn.py, and what they are made of."""

import json

import numpy as np
import pytest
from PIL import Image

from hybrid_mm.analysis.conflict_pairs import make_pairs, read_set, transfer_texture
from hybrid_mm.analysis.dimensions import Dimensions, dimensions, scores
from hybrid_mm.analysis.neighbours import accuracy
from hybrid_mm.errors import UserError

TINY = (
    "dict(type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], "
    'mlp_ratios=[2, 2, 2, 2]))'
)
SMALL = ('--size', 32, '--resize', 32)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def noise(seed, low=0, high=255, size=40):
    return np.random.default_rng(seed).integers(low, high, (size, size, 3))


@pytest.fixture
def conflict(tmp_path):
    """Two classes of shapes with two numbers, and two classes of textures of other names."""
    for i, shape in enumerate(('cat', 'dog')):
        for j, texture in enumerate(('fur', 'wood')):
            for n in (1, 2):
                name = f'{shape}{n}-{texture}1.png'
                save(tmp_path / 'set' / shape / name, noise(9 * i + 3 * j + n))
    return tmp_path / 'set'


# ---------------------------------------------------------------- dimensions


def test_a_factor_that_is_shared_wins():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(400, 32))
    noisy = [common + 0.2 * rng.normal(size=common.shape) for _ in range(2)]
    other = [rng.normal(size=common.shape) for _ in range(2)]
    found = dimensions([tuple(noisy), tuple(other)])
    assert sum(found.dims) == 32
    assert found.dims[0] > found.dims[1]
    assert found.scores[0] == pytest.approx(1.0, abs=0.1)
    assert found.scores[1] == pytest.approx(0, abs=0.1)
    sums = scores([tuple(noisy), tuple(other)], 'neuron')
    expected = [np.corrcoef(noisy[0][:, i], noisy[1][:, i])[0, 1] for i in range(32)]
    assert sums[0] == pytest.approx(sum(expected))


def test_dimensions_by_hand():
    """100 neurons alike: 1 and -1, in the first pairs moved up by 2 here and down by 2 there."""
    x = np.tile([[1.0], [-1.0]], (1, 100))
    pairs = [(x + 2, x - 2), (x, x)]
    # variance of all eight rows: (5 + 5 + 1 + 1) / 4; products (1 - 4) and 1
    found = dimensions(pairs)
    assert found.scores == pytest.approx((-1, 1 / 3, 1))
    # the softmax: 0.0821, 0.3114, 0.6065
    assert found.dims == (8, 31, 61)
    assert found.percent == (8.0, 31.0, 61.0)
    # correlations of each neuron: the offsets do not matter; the residual has the number of neurons
    y = np.array([[1.0, 1], [-1, 1], [1, -1], [-1, -1]])
    found = dimensions([(y + 2, y - 2), (y, y[:, ::-1])], 'neuron')
    assert found.scores == pytest.approx((2, 0, 2))
    assert found.dims == (0, 0, 2)  # 0.468, 0.063, 0.468 of two
    assert scores([(y, -y)], 'neuron') == [pytest.approx(-2)]


def test_wrong_features():
    x = np.ones((4, 3))
    with pytest.raises(ValueError, match='all features are the same'):
        dimensions([(x, x)])
    with pytest.raises(ValueError, match='n of at least 2'):
        dimensions([(x[:1], x[:1])])
    with pytest.raises(ValueError, match="normalise must be 'pooled' or 'neuron'"):
        dimensions([(x, x)], 'all')


# ---------------------------------------------------------------- pairs


def test_pairs_share_one_factor(conflict):
    images, without = read_set(conflict)
    assert (len(images), without) == (8, 0)
    pairs = make_pairs(images, 0)
    assert len(pairs['shape']) == len(pairs['texture']) == 8
    for a, b in pairs['shape']:
        assert images[a].shape == images[b].shape
        assert images[a].texture[0] != images[b].texture[0]
    for a, b in pairs['texture']:
        assert images[a].shape[0] != images[b].shape[0]
        assert images[a].texture == images[b].texture
    assert make_pairs(images, 0) == pairs
    assert any(make_pairs(images, seed) != pairs for seed in range(1, 5))


def test_images_without_a_conflict_are_dropped(conflict):
    save(conflict / 'cat' / 'cat1-cat2.png', noise(5))
    images, without = read_set(conflict)
    assert (len(images), without) == (8, 1)


def test_mismatched_pairs(conflict):
    for path in conflict.rglob('*wood*'):
        path.unlink()
    images, _ = read_set(conflict)
    with pytest.raises(UserError, match='0 of the 4 images have a partner of the same shape'):
        make_pairs(images, 0)


# ---------------------------------------------------------------- generator


def test_transfer_keeps_lightness_and_takes_texture():
    _, x = np.mgrid[:64, :64]
    shape = np.repeat(((x > 32) * 200 + 20)[..., None], 3, 2).astype(np.uint8)
    texture = noise(1, 0, 90, 64)
    texture[:, 32:] += 120
    texture[..., 2] = 0
    painted = transfer_texture(shape, texture.astype(np.uint8), (16, 8))
    assert painted.shape == shape.shape
    assert painted[..., 2].max() == 0  # nothing but pixels of the texture
    assert painted[:, 40:, :2].mean() > painted[:, :24, :2].mean() + 80
    np.testing.assert_array_equal(
        painted, transfer_texture(shape, texture.astype(np.uint8), (16, 8))
    )
    with pytest.raises(ValueError, match='smaller than blocks of 28'):
        transfer_texture(shape, painted[:20])


def test_weight_of_shape_and_texture():
    """With 0 the shape does not matter; with 1 its light and dark do, and red is lighter."""
    texture = noise(1, 0, 90, 48)
    texture[:, 24:] += 120
    texture = texture.astype(np.uint8)
    red, blue = (np.zeros((32, 32, 3), np.uint8) for _ in range(2))
    red[:, :16, 0], red[:, 16:, 2] = 255, 255
    blue[:, 16:, 0], blue[:, :16, 2] = 255, 255
    alike = [transfer_texture(x, texture, (8,), weight=0) for x in (red, blue)]
    np.testing.assert_array_equal(*alike)
    painted = [transfer_texture(x, texture, (8,), weight=1).astype(int) for x in (red, blue)]
    assert painted[0][:, :12].mean() > painted[0][:, 20:].mean() + 60
    assert painted[1][:, :12].mean() < painted[1][:, 20:].mean() - 60


def test_generate_and_measure(tool, tmp_path):
    for name in ('a', 'b', 'c'):
        for i in range(2):
            save(tmp_path / 'shapes' / name / f'{i}.png', noise(ord(name) + i, size=48))
            save(tmp_path / 'textures' / name / f'{i}.png', noise(ord(name) + 9 + i, size=48))
    sources = (tmp_path / 'shapes', tmp_path / 'textures')
    sizes = ('--size', 40, '--limit', 1)
    command = ('analysis/shape_texture', 'generate', *sources, tmp_path / 'set', *sizes)
    assert tool(*command)[0] == 0
    assert len(list((tmp_path / 'set').rglob('*.png'))) == 6  # 3 shapes x 2 other textures
    out = tmp_path / 'out'
    arguments = (tmp_path / 'set', TINY, '--labels', 'tiny', '--out', out, *SMALL)
    assert tool('analysis/shape_texture', 'measure', *arguments)[0] == 0
    content = json.loads((out / 'shape_texture.json').read_text())
    (model,) = content['models']
    assert model['neurons'] == 16
    assert sum(model['dims'].values()) == pytest.approx(16)
    assert (out / 'shape_texture.png').stat().st_size > 3000


def test_figures_are_means_over_the_choices_of_partners(tool, conflict, tmp_path, monkeypatch):
    results = [
        ((0.1, 0.2, 1.0), (2, 4, 10), (10.0, 25.0, 65.0)),
        ((0.3, 0.2, 1.0), (4, 4, 8), (30.0, 25.0, 45.0)),
        ((0.2, 0.5, 1.0), (3, 7, 6), (20.0, 40.0, 40.0)),
    ]
    scripted = iter([Dimensions(*result) for result in results])
    monkeypatch.setattr(
        'hybrid_mm.commands.shape_texture.dimensions', lambda pairs, normalise: next(scripted)
    )
    arguments = (conflict, TINY, '--labels', 'tiny', '--seeds', 3, '--out', tmp_path / 'o', *SMALL)
    assert tool('analysis/shape_texture', 'measure', *arguments)[0] == 0
    content = json.loads((tmp_path / 'o/shape_texture.json').read_text())
    (model,) = content['models']
    for key, *values in (
        ('scores', 0.2, 0.3, 1),
        ('dims', 3, 5, 8),
        ('percent', 20, 30, 50),
        ('spread', 20, 15, 25),
    ):
        expected = dict(zip(('shape', 'texture', 'residual'), values, strict=True))
        assert model[key] == pytest.approx(expected), key
    assert (content['images'], content['seeds'], content['pairs']) == (
        8,
        3,
        dict(shape=8, texture=8),
    )


def test_mistakes(fails, conflict, tmp_path):
    def measure(folder):
        return fails('analysis/shape_texture', 'measure', folder, TINY, '--out', tmp_path / 'o')

    def generate(shapes):
        textures = conflict / 'cat'
        return fails('analysis/shape_texture', 'generate', shapes, textures, tmp_path / 'g')

    (tmp_path / 'empty').mkdir()
    assert 'holds no images' in measure(tmp_path / 'empty')
    single = save(tmp_path / 'one' / 'cat1-fur1.png', noise(0))
    assert 'holds 1 images with shape and texture of different classes' in measure(single.parent)
    assert 'pairs need two classes beside' in generate(single.parent)
    assert 'holds no images' in generate(tmp_path / 'empty')
    (conflict / 'cat' / 'cat1-fur1.png').write_bytes(b'')
    assert 'cat1-fur1.png cannot be read as an image' in measure(conflict)
    save(conflict / 'cat' / 'photo.png', noise(0))
    assert 'expected a name <shape><number>-<texture><number>' in measure(conflict)


# ---------------------------------------------------------------- neighbours


def test_nearest_neighbours():
    reference = np.array([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
    labels = np.array(['a', 'a', 'b'])
    queries = np.array([[0.5, 1.0], [2.0, 0.1], [0.3, 0.1]])
    expected = np.array(['a', 'b', 'b'])
    # by angle the last one is next to b, by distance to the first a
    assert accuracy(reference, labels, queries, expected) == pytest.approx(200 / 3)
    assert accuracy(reference, labels, queries, expected, metric='cosine') == pytest.approx(100)
    # two of three are a; of one a and one b the nearer counts
    assert accuracy(reference, labels, queries, expected, k=3) == pytest.approx(100 / 3)
    assert accuracy(reference[1:], labels[1:], queries[1:2], ['b'], k=2) == 100
    with pytest.raises(ValueError, match='k must be 1 to 3'):
        accuracy(reference, labels, queries, expected, k=4)
    with pytest.raises(ValueError, match='metric must be one of l2, cosine'):
        accuracy(reference, labels, queries, expected, metric='l1')


def test_ties_and_lengths():
    reference = np.array([[0.0, 1.0], [0.0, 1.2], [9.0, 90.0]])
    labels = np.array(['b', 'a', 'c'])
    # of two labels that are equally frequent that of the nearer, not the first of the alphabet
    assert accuracy(reference, labels, np.array([[0.0, 0.9]]), ['b'], k=2) == 100
    # lengths do not matter for the angle: the far one is the nearest
    query = np.array([[0.1, 1.0], [0.01, 1.0]])
    assert accuracy(reference, labels, query, ['c', 'b'], metric='cosine') == 100
    assert accuracy(reference, labels, query, ['c', 'b']) == 50


@pytest.fixture
def dtd(tmp_path):
    """Two classes that differ in their colour."""
    root = tmp_path / 'dtd'
    (root / 'labels').mkdir(parents=True)
    lists = dict(train=[], val=[])
    for name, colour in (('red', 0), ('blue', 2)):
        for i in range(4):
            pixels = noise(i, 0, 60)
            pixels[..., colour] += 180
            save(root / 'images' / name / f'{i}.png', pixels)
            lists['train' if i < 1 else 'val'].append(f'{name}/{i}.png')
    for part, names in lists.items():
        (root / 'labels' / f'{part}1.txt').write_text('\n'.join(names) + '\n')
    return root


def test_texture_knn(tool, fails, dtd, tmp_path):
    out = tmp_path / 'o'
    assert tool('analysis/texture_knn', dtd, TINY, '--out', out, *SMALL)[0] == 0
    content = json.loads((out / 'texture_knn.json').read_text())
    assert content['models'][0]['splits'] == {'1': 100.0}  # plain colours survive random weights
    assert (content['images'], content['classes']) == (8, 2)

    def error(*arguments):
        return fails('analysis/texture_knn', dtd, TINY, '--out', out, *SMALL, *arguments)

    assert 'train2.txt does not exist; expected the layout of DTD' in error('--splits', 2)
    assert '--k: k must be 1 to 2' in error('--k', 3)  # of the two images for training
    (dtd / 'images' / 'red' / '0.png').unlink()
    assert 'does not exist (1 do not)' in error()
