"""tools/analysis/receptive_field.py and what it is made of."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hybrid_mm.analysis import networks
from hybrid_mm.analysis.networks import load_network
from hybrid_mm.analysis.receptive_field import (
    contribution,
    display,
    mean_contribution,
    rectangles,
)

TINY = (
    "dict(type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], "
    'mlp_ratios=[2, 2, 2, 2]))'
)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'photos'
    folder.mkdir()
    for i in range(3):
        pixels = rng.integers(0, 255, (50 + i, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


def positive_mean(size):
    """Mean over squares as a convolution: every pixel of the square contributes alike."""
    conv = nn.Conv2d(3, 1, size, padding=size // 2, bias=False)
    nn.init.constant_(conv.weight, 1.0)
    return conv.requires_grad_(False)


def test_the_square_of_a_convolution():
    scores = contribution(positive_mean(7), torch.ones(2, 3, 33, 41))
    expected = torch.zeros(33, 41)
    expected[16 - 3 : 16 + 4, 20 - 3 : 20 + 4] = 3  # three colours
    torch.testing.assert_close(scores, expected.expand(2, -1, -1))
    found = rectangles(scores[0].numpy(), (0.18, 0.5, 0.99))
    area = 33 * 41
    assert found == {0.18: (3, 9 / area), 0.5: (5, 25 / area), 0.99: (7, 49 / area)}


def test_squares_that_do_not_fit():
    flat = np.ones((40, 64))
    assert rectangles(flat, (0.99,)) == {0.99: None}
    assert rectangles(flat.T, (0.99,)) == {0.99: None}
    with pytest.raises(ValueError, match='all scores are 0'):
        rectangles(np.zeros((40, 40)))


def test_squares_as_wide_as_the_image():
    """All pixels alike, 11 rows of 9: the square of 9 has 81 of 99, that of 7 has 49."""
    found = rectangles(np.ones((11, 9)), (0.49, 0.5, 0.8, 0.82))
    assert found == {0.49: (7, 49 / 99), 0.5: (9, 81 / 99), 0.8: (9, 81 / 99), 0.82: None}


def test_display_is_the_logarithm_over_its_largest_value():
    found = display(np.array([[0.0, 9.0], [99.0, 9999.0]]))
    np.testing.assert_allclose(found, [[0, 0.25], [0.5, 1]])


def test_what_is_negative_does_not_contribute():
    """Channels that are negative at the centre, and colours with a negative gradient."""
    conv = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
    conv.weight.copy_(torch.tensor([[4.0, -1, 0.5], [-9, -9, -9]])[..., None, None])
    scores = contribution(conv, torch.ones(1, 3, 5, 7))
    expected = torch.zeros(1, 5, 7)
    expected[0, 2, 3] = 4.5
    torch.testing.assert_close(scores, expected)


def test_images_with_nan_do_not_count():
    good, bad = torch.ones(1, 3, 33, 33), torch.full((1, 3, 33, 33), float('nan'))
    network = lambda x: positive_mean(3)(x) * x.sum()  # noqa: E731
    scores, used, skipped = mean_contribution(network, iter([bad, good, good, good]), 2)
    assert (used, skipped) == (2, 1)
    np.testing.assert_allclose(scores, contribution(network, good)[0])
    with pytest.raises(ValueError, match='no image gave finite scores'):
        mean_contribution(network, iter([bad]), 2)


def test_tool(tool, photos, tmp_path, seg_config):
    out = tmp_path / 'out'
    flags = ('--images', photos, '--size', 64, 96, '--count', 2, '--out', out)
    models = (TINY, seg_config, '--labels', 'a net', 'b')
    assert tool('analysis/receptive_field', *models, *flags, '--stage', 0)[0] == 0
    content = json.loads((out / 'receptive_field.json').read_text())
    assert content['size'] == [64, 96]
    assert [m['label'] for m in content['models']] == ['a net', 'b']
    assert all(m['images'] == 2 and m['weights'] == 'random weights' for m in content['models'])
    scores = np.load(out / 'a_net.npy')
    assert scores.shape == (64, 96)
    expected = rectangles(scores, (0.2,))[0.2]
    assert content['models'][0]['squares']['0.2'] == pytest.approx(list(expected))
    assert Image.open(out / 'receptive_fields.png').size[0] > 500


def test_weights_are_loaded(tool, photos, tmp_path, seg_config, work_dir_of):
    checkpoint = work_dir_of('seg') / 'iter_2.pth'
    flags = ('--images', photos, '--size', 64, '--count', 1, '--out', tmp_path / 'o')
    arguments = (seg_config, '--checkpoints', checkpoint)
    assert tool('analysis/receptive_field', *arguments, *flags)[0] == 0
    content = json.loads((tmp_path / 'o' / 'receptive_field.json').read_text())
    assert content['models'][0]['weights'] == str(checkpoint)


SWIN = "dict(type='mmdet.SwinTransformer', embed_dims=12, depths=[1] * 4, num_heads=[1] * 4)"
SWIN = SWIN.replace('[1] * 4', '[1, 1, 1, 1]')


def test_a_model_that_fails_does_not_stop_the_others(tool, photos, tmp_path, capsys):
    """Neither an unknown network, nor one whose train() returns nothing as MMDetection's Swin."""
    out = tmp_path / 'out'
    flags = ('--images', photos, '--size', 64, '--count', 1, '--out', out)
    models = (TINY, "dict(type='hybrid_mm.NoSuch')", SWIN, '--labels', 'a', 'none', 'swin')
    status, err = tool('analysis/receptive_field', *models, *flags)
    assert status == 1 and "error: none: type 'hybrid_mm.NoSuch' is not" in err
    content = json.loads((out / 'receptive_field.json').read_text())
    assert [m['label'] for m in content['models']] == ['a', 'swin']
    assert list(content['errors']) == ['none']
    assert (out / 'swin.npy').exists()


def test_results_before_an_interruption_are_kept(tool, photos, tmp_path, monkeypatch):
    calls = []

    def load(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return load_network(*arguments)

    monkeypatch.setattr(networks, 'load_network', load)
    out = tmp_path / 'out'
    flags = ('--images', photos, '--size', 64, '--count', 1, '--out', out)
    models = (TINY, TINY, TINY, TINY, '--labels', *'abcd')
    status, err = tool('analysis/receptive_field', *models, *flags)
    assert status == 130 and 'interrupted; without c, d' in err
    content = json.loads((out / 'receptive_field.json').read_text())
    assert [m['label'] for m in content['models']] == ['a', 'b']
    assert (out / 'receptive_fields.png').exists()


def test_mistakes(fails, photos, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    out = ('--out', tmp_path / 'out', '--size', 64)

    def error(*arguments, images=photos):
        return fails('analysis/receptive_field', *arguments, '--images', images, *out)

    assert 'holds no images' in error(TINY, images=tmp_path / 'empty')
    assert 'does not exist' in error(TINY, images=tmp_path / 'no')
    assert 'has no type' in error('dict(arch=1)')
    assert '2 models need as many, got 1' in error(TINY, TINY, '--labels', 'a')
    assert 'several models are called' in error(TINY, TINY)
    assert '--stage 4: ' in error(TINY, '--stage', 4)
    assert 'expected -4 to 3' in error(TINY, '--stage', 4)
    assert 'checkpoint no.pth does not exist' in error(TINY, '--checkpoints', 'no.pth')
    (photos / '0.png').write_bytes(b'no picture')
    assert '0.png cannot be read as an image' in error(TINY)
    with pytest.raises(SystemExit):
        fails('analysis/receptive_field', TINY, '--images', photos, '--out', 'x', '--size', 8)
