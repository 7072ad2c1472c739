"""``auto`` and ``hybrid_mm://NAME`` in the place of a checkpoint, of a file of the authors'."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.apis import Predictor

from ..engine.test_starting_weights import to_official

REGISTRY = """
- Name: tiny_seg
  Files:
    - {Page: https://x.org/drive, Layout: van, Source: readme}
- Name: tiny_in1k
  Unpublished: readme
  Trained by: tiny_8xb2_in1k
"""


@pytest.fixture
def published(seg_config, registry, tmp_path):
    """A segmenter with random weights: in our layout, and where its registered name is."""
    registry(x=REGISTRY)
    cfg = Config.fromfile(seg_config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        state = MODELS.build(cfg.model).state_dict()
    state['decode_head.conv_seg.weight'] *= 50
    torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
    inner = 'backbone.'
    theirs = {
        inner + to_official(key.removeprefix(inner)) if key.startswith(inner) else key: value
        for key, value in state.items()
    }
    (tmp_path / 'here/checkpoints').mkdir()
    torch.save(dict(state_dict=theirs), tmp_path / 'here/checkpoints/tiny_seg.pth')
    return seg_config, tmp_path / 'ours.pth'


def test_test(published, tool, tmp_path, tiny_ade):
    """The metrics are those of the same weights in our layout."""
    config, ours = published
    found = []
    for checkpoint in (ours, 'auto', 'hybrid_mm://tiny_seg'):
        out = tmp_path / 'metrics.json'
        argv = ('--work-dir', tmp_path / 'work', '--out', out, '--out-item', 'metrics')
        status, err = tool('test', config, checkpoint, *argv)
        assert status == 0, err
        found.append({k: v for k, v in json.loads(out.read_text()).items() if 'time' not in k})
    assert found[0] == found[1] == found[2] and found[0]['mIoU'] > 0

    other = config.with_name('other.py')
    other.write_text(config.read_text())
    status, err = tool('test', other, 'auto', '--work-dir', tmp_path / 'work')
    assert status == 2 and 'no published weights of other as a whole are known' in err
    status, err = tool('test', config, 'hybrid_mm://tiny_sec', '--work-dir', tmp_path / 'work')
    assert status == 2 and 'did you mean tiny_seg' in err


def test_predict(published, tool, tmp_path, tiny_ade):
    """The label maps, too; a config that is given names its file."""
    config, ours = published
    image = sorted((tiny_ade / 'images/validation').iterdir())[0]
    status, err = tool('predict', config, 'auto', image, '--out', tmp_path / 'out')
    assert status == 0, err
    (expected,) = Predictor(config, ours, device='cpu')(str(image))
    (found,) = Predictor(Config.fromfile(config), 'auto', device='cpu')(str(image))
    assert (found.label_map == expected.label_map).all()
    assert len(set(found.label_map.ravel())) > 1
    assert found.classes == ('square', 'disc', 'bar')


@pytest.mark.parametrize('name', ['convert_checkpoint', 'publish_model'])
def test_files_are_written_from_names(published, tool, tmp_path, name):
    _, ours = published
    status, err = tool(name, 'hybrid_mm://tiny_seg', tmp_path / 'written.pth')
    assert status == 0, err
    (file,) = tmp_path.glob('written*.pth')
    found = torch.load(file, weights_only=True)['state_dict']
    expected = torch.load(ours, weights_only=True)['state_dict']
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
