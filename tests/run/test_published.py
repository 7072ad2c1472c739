"""``auto``: the published weights of a config."""

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.published import checkpoint_of, needed_weights, published_weights

X = """
- Name: x-tiny_in1k
  Files:
    - {URL: https://x.org/x.pth, Layout: ours, Source: readme}
  Trained by: x-tiny_8xb128_in1k
- Name: x-tiny_upernet_ade20k
  Files:
    - {Page: https://x.org, Layout: ours, Source: readme}
- Name: mask-rcnn_x-tiny_fpn_1x_coco
  Files:
    - {Page: https://x.org, Layout: ours, Source: readme}
"""


@pytest.fixture
def config(registry, tmp_path):
    """A function that writes a config and returns its path."""
    registry(
        x=X, y=X[X.index('- Name: x-tiny_upernet') : X.index('- Name: mask')].replace('x-', 'y-')
    )

    def write(name, text='', tree='configs'):
        path = tmp_path / tree / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_weights_of_a_config_are_found_by_its_name(config):
    """Of a detector by its own, of a classifier as that which trains them; also of a Config."""
    for name, weights in (
        ('x-tiny_8xb128_in1k', 'x-tiny_in1k'),
        ('x-tiny_upernet_ade20k', 'x-tiny_upernet_ade20k'),
    ):
        path = config(name)
        assert checkpoint_of(path, 'auto') == f'hybrid_mm://{weights}'
        assert checkpoint_of(Config.fromfile(path), 'auto') == f'hybrid_mm://{weights}'
        assert published_weights(name).name == weights
    assert published_weights('x-small_8xb128_in1k') is None


def test_other_checkpoints_stay_as_they_are(config, tmp_path):
    for name in ('x.pth', 'hybrid_mm://y', 'https://x.org/auto', './auto'):
        assert checkpoint_of('no_config.py', name) == name
    assert checkpoint_of('no_config.py', tmp_path / 'x.pth') == str(tmp_path / 'x.pth')


INIT = "dict(type='Pretrained', checkpoint={!r})"


def test_what_there_is_instead(config):
    """The weights that a training starts from, and whole networks that have weights."""
    backbone = f'dict(init_cfg={INIT.format("hybrid_mm://x-tiny_in1k")})'
    path = config('mask-rcnn_x-tiny_fpn_3x_coco', f'model = dict(backbone={backbone})')
    with pytest.raises(UserError) as caught:
        checkpoint_of(path, 'auto')
    assert str(caught.value) == (
        'auto: no published weights of mask-rcnn_x-tiny_fpn_3x_coco as a whole are known; those of '
        'a part, which it is trained from: hybrid_mm://x-tiny_in1k. Train it with tools/train.py '
        'and name the checkpoint; published are, for example, mask-rcnn_x-tiny_fpn_1x_coco, '
        'x-tiny_upernet_ade20k'
    )
    # of the tree of the config, if there are any
    with pytest.raises(UserError, match=r'for example, y-tiny_upernet_ade20k$'):
        checkpoint_of(config('x-tiny_upernet_3x_ade20k', tree='y'), 'auto')
    with pytest.raises(UserError, match=r'as a whole are known\. Train it'):
        checkpoint_of(config('other'), 'auto')
    with pytest.raises(UserError, match=r'config none\.py does not exist'):
        checkpoint_of('none.py', 'auto')
    with pytest.raises(UserError, match='there is none here'):
        checkpoint_of(Config(dict(model={})), 'auto')


def test_needed_weights(config):
    """All that a model, its teacher in a hook, and load_from name, each once."""
    a, b = INIT.format('hybrid_mm://a'), INIT.format('torchvision://b')
    path = config(
        'x',
        f'model = dict(a=dict(init_cfg={a}), b=[dict(init_cfg={a}), dict(init_cfg={b})])\n'
        "load_from = 'c.pth'\n"
        "custom_hooks = [dict(teacher=dict(init_cfg=dict(type='Pretrained', checkpoint='d')))]",
    )
    assert needed_weights(Config.fromfile(path)) == [
        'hybrid_mm://a',
        'torchvision://b',
        'd',
        'c.pth',
    ]
    path = config('y', "model = dict(backbone=dict(init_cfg=dict(type='Kaiming')))\nload_from=None")
    assert needed_weights(Config.fromfile(path)) == []
