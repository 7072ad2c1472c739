"""Inputs of analyses: colours, sizes, which map; and the newest of several runs."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hybrid_mm.analysis import variants
from hybrid_mm.analysis.curves import read_scalars
from hybrid_mm.analysis.networks import Network, cropped, features, load_network, stretched
from hybrid_mm.backbones import VAN
from hybrid_mm.checkpoints import CheckpointError

ARCH = 'dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)'
TINY = f"dict(type='hybrid_mm.VAN', arch={ARCH})"


@pytest.mark.parametrize(
    ('settings', 'bgr'),
    [
        ('mean=[1., 2, 3], std=[2., 4, 5], bgr_to_rgb=True', False),
        ('mean=[1., 2, 3], std=[2., 4, 5], to_rgb=True', False),
        ('mean=[1., 2, 3], std=[2., 4, 5]', True),
        ('', False),  # no settings: RGB with the figures of ImageNet
    ],
)
def test_colours_are_those_of_the_config(settings, bgr, tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(
        f"default_scope = 'mmengine'\ndata_preprocessor = dict({settings})\n"
        f'model = dict(type="X", backbone={TINY})\n'
    )
    network = load_network(str(config))
    assert (network.bgr, network.label, network.weights) == (bgr, 'c', 'random weights')
    image = np.empty((2, 3, 3), np.uint8)
    image[:] = 10, 20, 30
    found = network.normalise(image)
    assert found.shape == (3, 2, 3)
    if settings:
        expected = [(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 5] if bgr else [9 / 2, 18 / 4, 27 / 5]
    else:
        expected = [(10 - 123.675) / 58.395, (20 - 116.28) / 57.12, (30 - 103.53) / 57.375]
    torch.testing.assert_close(found[:, 1, 2], torch.tensor(expected))


def test_sizes_of_images(tmp_path):
    """A ramp of 200 x 100: the shorter side to 50, of whose 100 x 50 the centre is cut."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / 'x.png')
    found = cropped(tmp_path / 'x.png', 50, 40)
    assert found.shape == (40, 40, 3)
    # column i is i + 30 of 100, of the whole 2 i + 60.5
    np.testing.assert_allclose(found[20, 1:-1, 0], 2 * np.arange(1, 39) + 60.5, atol=1)
    assert stretched(tmp_path / 'x.png', 30, 20).shape == (30, 20, 3)


def test_features_are_means_of_the_chosen_map(tmp_path):
    class Maps(nn.Module):
        def forward(self, x):
            return x[..., ::2, ::2], 3 * x.mean((2, 3), keepdim=True)

    pixels = np.full((40, 40, 3), (50, 100, 150), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'x.png')
    network = Network(Maps(), 'maps', mean=(0, 0, 0), std=(10, 10, 10), stage=1)
    found = features(network, [tmp_path / 'x.png'] * 3, 32, 32, batch=2)
    np.testing.assert_allclose(found, [[15, 30, 45]] * 3, rtol=1e-5)
    network.stage = 0
    np.testing.assert_allclose(features(network, [tmp_path / 'x.png'], 32, 32), [[5, 10, 15]])


def test_curves_are_those_of_the_newest_run(tmp_path):
    for age, name, values in ((0, 'a', (1.0, 2.0)), (90, 'b', (5.0, 6.0)), (40, 'c', (7.0, 8.0))):
        file = tmp_path / name / 'vis_data/scalars.json'
        file.parent.mkdir(parents=True)
        lines = [dict(loss=value, iter=3 * i, epoch=1) for i, value in enumerate(values)]
        file.write_text('\n'.join(map(json.dumps, lines)))
        os.utime(file, (1e9 - age, 1e9 - age))
    assert read_scalars(tmp_path) == {'loss': ([0, 3], [1.0, 2.0])}
    assert read_scalars(tmp_path / 'b') == {'loss': ([0, 3], [5.0, 6.0])}


# ---- times


class Scripted(variants.Passes):
    """Passes that take the times of a list, in seconds."""

    def __init__(self, times):
        super().__init__({}, torch.zeros(1))
        self.times, self.order = iter(times), []

    def seconds(self, mode, name):
        self.order.append(name)
        return next(self.times)


def test_medians_of_all_rounds_but_the_first():
    # the round that is not measured begins with the last one
    passes = Scripted([900, 800, 2, 6, 4, 10, 3, 30, 5, 6])
    medians, ratios = variants.take_turns(passes, ['inference'], ['a', 'b'], 4)
    assert ''.join(passes.order) == 'baabbaabba'
    # a: 2, 10, 3, 6; b: 6, 4, 30, 5
    assert medians == {('inference', 'a'): 4.5, ('inference', 'b'): 5.5}
    # 3, 0.4, 10, 5 / 6
    assert ratios['inference', 'b'] == pytest.approx((3 + 5 / 6) / 2)
    assert ratios['inference', 'a'] == 1


def test_times_are_those_of_an_image(tmp_path, monkeypatch):
    taken = dict(inference=0.25, training=1.0)
    monkeypatch.setattr(variants.Passes, 'seconds', lambda self, mode, name: taken[mode])
    path = tmp_path / 'a.py'
    path.write_text(f'backbone = {TINY}\n')
    (found,) = variants.compare({'a': path}, (32, 32), batch=4, rounds=1)
    assert (found.inference_ms, found.training_ms) == (62.5, 250)


def test_published_weights(registry, tmp_path):
    """By name and as those of a config: the backbone of a classifier or of a detector."""
    entry = '- Name: {}\n  Files:\n    - {{Page: https://x.org, Layout: ours, Source: readme}}\n'
    registry(x=entry.format('x_in1k') + '  Trained by: x_8xb1_in1k\n' + entry.format('y_coco'))
    state = VAN(dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)).state_dict()
    checkpoints = tmp_path / 'here/checkpoints'
    checkpoints.mkdir()
    torch.save({**state, 'head.weight': torch.zeros(3, 8)}, checkpoints / 'x_in1k.pth')
    whole = {f'backbone.{key}': value for key, value in state.items()}
    torch.save({**whole, 'neck.weight': torch.zeros(1)}, checkpoints / 'y_coco.pth')
    for name in ('x_8xb1_in1k', 'y_coco'):
        (tmp_path / f'{name}.py').write_text(f'model = dict(type="X", backbone={TINY})\n')
    literal = TINY.replace('[8] * 4', '[8, 8, 8, 8]').replace('[1] * 4', '[1, 1, 1, 1]')
    literal = literal.replace('[2] * 4', '[2, 2, 2, 2]')
    key = 'stages.0.embed.conv.weight'
    for model, checkpoint, label in (
        (literal, 'hybrid_mm://x_in1k', 'hybrid_mm://x_in1k'),
        (str(tmp_path / 'x_8xb1_in1k.py'), 'auto', 'hybrid_mm://x_in1k'),
        (str(tmp_path / 'y_coco.py'), 'auto', 'hybrid_mm://y_coco'),
    ):
        network = load_network(model, checkpoint)
        assert network.weights == label
        assert torch.equal(network.module.state_dict()[key], state[key])
    with pytest.raises(CheckpointError, match='checkpoint auto does not exist'):
        load_network(literal, 'auto')
