"""Weights for images of three channels, spread over other numbers."""

import pytest
import torch

from hybrid_mm.backbones import VAN
from hybrid_mm.convert.image_channels import check_mapping, inflated, other_channels

TINY = dict(embed_dims=[8, 8, 8, 8], depths=[1] * 4, mlp_ratios=[1] * 4)


def test_rule():
    """Numbers by hand, as timm's adapt_input_conv gives them: sums for one channel."""
    weight = torch.tensor([1.0, 10, 100]).view(1, 3, 1, 1)
    for rule, channels, expected in (
        (True, 1, [111]),
        (True, 2, [1.5, 15]),
        (True, 4, [0.75, 7.5, 75, 0.75]),
        (True, 6, [0.5, 5, 50, 0.5, 5, 50]),
        ([2, 1, 0, None], 4, [75, 7.5, 0.75, 111 / 4]),
    ):
        found = inflated(weight, check_mapping(rule, channels))
        torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize('rule', [[0, 1], [0, 1, 2, 3], [0, 1, 2, True], 'rgb', 4])
def test_wrong_mappings(rule):
    with pytest.raises(ValueError, match='list of 4 values of 0, 1, 2 and None'):
        check_mapping(rule, 4)


def test_only_the_convolution_of_images():
    """Not a file of six channels, nor one for the same number."""
    own = VAN(TINY, in_channels=6).state_dict()
    key = 'stages.0.embed.conv.weight'
    assert other_channels(own, VAN(TINY).state_dict()) == {key: 6}
    assert not other_channels(own, own)
    assert not other_channels(VAN(TINY).state_dict(), own)


def test_log_and_lists(tmp_path, capsys):
    """What was done is said in one line, and only if there was something to do."""
    path = str(tmp_path / 'three.pth')
    torch.save(VAN(TINY).state_dict(), path)
    weight = torch.load(path)['stages.0.embed.conv.weight']
    said = []
    for channels, rule in ((4, [2, 1, 0, None]), (3, True)):
        init = dict(type='Pretrained', checkpoint=path, inflate_channels=rule)
        model = VAN(TINY, in_channels=channels, init_cfg=init)
        model.announce = said.append
        model.init_weights()
        found = model.stages[0].embed.conv.weight
        if channels == 4:
            torch.testing.assert_close(found[:, 0], weight[:, 2] * 0.75)
            torch.testing.assert_close(found[:, 3], weight.mean(1) * 0.75)
        else:
            torch.testing.assert_close(found, weight)
    (line,) = said
    assert 'of 3 channels inflated to 4: channels [2, 1, 0, None] of the file, times 3/4' in line


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (dict(inflate_chanels=True), r"VAN has no key 'inflate_chanels'; did you mean inflate_ch"),
        (dict(inflate_channels='True'), 'must be True, False or a list .*, got .True'),
        (dict(inflate_channels=1), 'must be True, False or a list .*, got 1'),
        (dict(checkpoint=None), 'VAN needs checkpoint'),
    ],
)
@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained'])
def test_wrong_init_cfg(changes, text, kind):
    """A key that has no effect would leave the user with what he did not ask for."""
    init = dict(type=kind, checkpoint='x.pth', prefix='backbone') | changes
    with pytest.raises(ValueError, match=text):
        VAN(TINY, init_cfg=init)
    model = VAN(TINY)
    model.init_cfg = init  # as of hosts, whose constructors are MMDetection's
    with pytest.raises(ValueError, match=text):
        model.init_weights()


def test_a_list_that_has_nothing_to_spread(tmp_path):
    path = str(tmp_path / 'three.pth')
    torch.save(VAN(TINY).state_dict(), path)
    with pytest.raises(ValueError, match=r'inflate_channels=\[2, 1, 0\] of VAN has nothing to spr'):
        VAN(TINY).load_pretrained(path, inflate_channels=[2, 1, 0])
