"""Tools whose configs name weights: what is said and downloaded before anything that takes time."""

import shutil

import pytest

from hybrid_mm.apis import Predictor
from hybrid_mm.weights import WeightsError


@pytest.fixture
def config(det_config, there):
    """Write a config of a small detector whose backbone starts from weights."""

    def write(checkpoint):
        lines = [
            f"model['backbone'] = dict(backbone, init_cfg=dict(type='Pretrained', "
            f"checkpoint='{checkpoint}'))",
            f"work_dir = '{there.folder / 'out'}'",
        ]
        path = det_config.with_name('with_weights.py')
        path.write_text(det_config.read_text() + '\n'.join(lines) + '\n')
        return path

    return write


@pytest.mark.parametrize(
    ('checkpoint', 'text'),
    [
        ('hybrid_mm://hashd_in1k', 'hashd_in1k: there are no weights of this name; did you mean'),
        ('hybrid_mm://by-hand_in1k', 'has to be downloaded by hand'),
        ('hybrid_mm://to-train_in1k', 'train.py configs/van/van_8xb1_in1k.py` trains it'),
        ('hybrid_mm://nowhere_in1k', 'was never published'),
    ],
)
def test_weights_that_cannot_be_had_are_named_first(config, fails, tiny_coco, checkpoint, text):
    """Before the data are looked at, which takes minutes for large ones."""
    shutil.move(tiny_coco / 'annotations', tiny_coco / 'elsewhere')
    path = config(checkpoint)
    try:
        for flags in ([], ['--dry-run']):
            assert text in fails('train', path, *flags)
        path.write_text(
            path.read_text() + f"load_from = '{checkpoint}'\nmodel['backbone'] = backbone\n"
        )
        assert text in fails('train', path)
    finally:
        shutil.move(tiny_coco / 'elsewhere', tiny_coco / 'annotations')


def test_weights_are_downloaded_after_the_data_are_checked(config, fails, tiny_coco, there):
    there.publish('a/{name}')
    shutil.move(tiny_coco / 'annotations', tiny_coco / 'elsewhere')
    try:
        assert 'train.json does not exist' in fails('train', config('hybrid_mm://hashed_in1k'))
        assert not there.asked
    finally:
        shutil.move(tiny_coco / 'elsewhere', tiny_coco / 'annotations')


def test_weights_that_cannot_be_downloaded(config, fails, there):
    path = config('hybrid_mm://hashed_in1k')
    text = fails('train', path)
    assert 'cannot be downloaded: no address' in text
    assert '--cfg-options model.backbone.init_cfg=None trains from scratch' in text
    asked = len(there.asked)
    assert 'HTTP 404' in fails('train', config(f'{there.base}/x/net.pth'))
    assert len(there.asked) == asked + 1
    path = config('hybridmm://hashed_in1k')
    assert 'neither a file nor of a scheme' in fails('train', path)
    assert 'has to be downloaded by hand' in fails('test', path, 'hybrid_mm://by-hand_in1k')
    with pytest.raises(WeightsError, match='has to be downloaded by hand'):
        Predictor(path, 'hybrid_mm://by-hand_in1k')


@pytest.mark.slow
def test_training_of_two_processes_downloads_once(config, fork_tool, there):
    there.publish('a/{name}')
    path = config('hybrid_mm://hashed_in1k')
    # the weights are no trained ones: a step along their gradient would end in a loss of nan
    more = "load_from = 'hybrid_mm://hashed_in1k'\noptim_wrapper['optimizer']['lr'] = 1e-9\n"
    path.write_text(path.read_text() + more)
    fork_tool('train', 2, path)
    assert there.asked == [f'/a/{there.name}']
    assert (there.cache / there.name).read_bytes() == there.content
