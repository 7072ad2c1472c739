"""The fast loader of the tests gives what MMEngine's gives."""

import pytest
from mmengine.config import Config

from .loading import CONFIGS, fromfile, look_at

VARIED = (
    '_base_/datasets/coco_instance_1024x1024.py',  # {{_base_.backend_args}} in a list
    '_base_/default_runtime_seg.py',  # an environment variable in its base, split
    'camvid/van-lska-mini_fpn_1xb8-1200_camvid-240x320.py',
    'coatnet/coatnet-0-rw_fpn_8xb4-40k_ade20k-512x512.py',  # four bases, _delete_
    'demo/mask-rcnn_van-lska-mini_fpn_shapes.py',
    'maxvit/maxvit-xlarge_32xb128-300e_in1k.py',  # changes _base_ in place
    'nat/mask-rcnn_nat-mini_fpn_ms-crop-3x_coco.py',
    'pelk/pelk-small_32xb128-300e_in1k.py',  # changes a list that the next file unpacks
    'pelk/pelk-tiny_32xb128-300e_in1k.py',
    'replknet/replknet-xl_upernet_16xb2-160k_ade20k-640x640.py',
    'van/van-b1_upernet_8xb2-160k_ade20k-512x512.py',  # a base of the next
    'van/van-b2_upernet_8xb2-160k_ade20k-512x512.py',
    'vitdet/mask-rcnn_vitdet-large_8xb8-lsj-100e_coco.py',
)


def typed(value):
    """A value with the types and the order of all that it holds."""
    if isinstance(value, dict):
        return type(value), [(key, typed(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    return type(value), value


def all_of(cfg):
    return typed(cfg._cfg_dict), cfg.filename, cfg.text, cfg.env_variables


def test_equals_mmengine(monkeypatch):
    for value in (None, 'LocalVisBackend,TensorboardVisBackend'):
        if value:
            monkeypatch.setenv('VIS_BACKENDS', value)
        for name in VARIED if value is None else VARIED[:3]:
            expected = all_of(Config.fromfile(CONFIGS / name))
            for _ in range(2):
                assert all_of(look_at(CONFIGS / name)) == expected, name
                assert all_of(fromfile(CONFIGS / name)) == expected, name


def test_changes_stay_with_the_caller():
    path, child = CONFIGS / VARIED[9], CONFIGS / VARIED[10]
    kept = all_of(look_at(path))
    cfg = fromfile(path)
    cfg.model.backbone.drop_path_rate = 0.9
    cfg.train_dataloader.dataset.pipeline.clear()
    cfg.param_scheduler[0].end = 3
    assert all_of(look_at(path)) == kept
    assert look_at(child).param_scheduler == look_at(path).param_scheduler


def test_files_of_tests_may_change(tmp_path):
    path = tmp_path / 'mine.py'
    for value in (1, 2):
        path.write_text(f"_base_ = '{CONFIGS}/_base_/default_runtime_seg.py'\nvalue = {value}\n")
        assert fromfile(path).value == value


def test_errors_are_those_of_mmengine():
    with pytest.raises(FileNotFoundError, match=r'none\.py'):
        fromfile(CONFIGS / 'van/none.py')
