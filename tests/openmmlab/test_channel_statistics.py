"""Data preprocessors with a mean and std for each channel."""

import pytest
import torch

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.registry import MODELS

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
TYPES = ('hybrid_mm.MultichannelDetDataPreprocessor', 'hybrid_mm.MultichannelSegDataPreProcessor')


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('channels', [1, 3, 6])
def test_normalisation(kind, channels):
    """Every channel by its own numbers, in its place; padding is added after it."""
    mean, std = list(range(channels)), [2.0 + c for c in range(channels)]
    pad = dict(pad_size_divisor=8) if 'Det' in kind else dict(test_cfg=dict(size_divisor=8))
    processor = MODELS.build(dict(type=kind, mean=mean, std=std, **pad))
    image = torch.rand(channels, 6, 7) * 4000
    sample = pytest.importorskip('mmseg.structures').SegDataSample()
    found = processor(dict(inputs=[image], data_samples=[sample]))['inputs']
    assert found.shape == (1, channels, 8, 8) and not found[..., 6:, :].any()
    for c in range(channels):
        torch.testing.assert_close(found[0, c, :6, :7], (image[c] - c) / (2 + c))
    assert not processor.state_dict()  # as of the classes that they extend


def test_one_value_for_all_channels():
    processor = MODELS.build(dict(type=TYPES[0], mean=[1], std=[2]))
    found = processor(dict(inputs=[torch.full((5, 4, 4), 7.0)], data_samples=None))['inputs']
    assert (found == 3).all() and found.shape[1] == 5


def test_images_of_other_channels():
    """Broadcasting would make six channels of one."""
    processor = MODELS.build(dict(type=TYPES[1], mean=[0] * 6, std=[1] * 6))
    for batch in ([torch.zeros(1, 4, 4)], torch.zeros(2, 1, 4, 4)):
        with pytest.raises(ValueError, match=r'an image has 1 channels, mean and std .* 6 values'):
            processor(dict(inputs=batch, data_samples=None))


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(mean=[1, 2], std=[1]), 'have 2 and 1'),
        (dict(mean=[1, 2]), 'needs both mean and std'),
        (dict(mean=[1, 2], std=[1, 0]), 'std positive; got 0'),
        (dict(mean=[1, float('nan')], std=[1, 1]), 'must be finite'),
        (dict(mean=[1] * 4, std=[1] * 4, bgr_to_rgb=True), 'bgr_to_rgb=True .* three channels'),
    ],
)
@pytest.mark.parametrize('kind', TYPES)
def test_wrong_numbers(kind, settings, text):
    with pytest.raises((ValueError, RuntimeError), match=text):
        MODELS.build(dict(type=kind, **settings))
