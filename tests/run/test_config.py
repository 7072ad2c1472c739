"""Reading of configs and of options that are configs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict

from hybrid_mm.errors import UserError
from hybrid_mm.run import config, config_folder
from hybrid_mm.run.config import (
    library_of,
    literal_spec,
    load_config,
    require_library,
    task_of,
    with_options,
    without_init_cfg,
)
from hybrid_mm.run.config_folder import config_root, installed_configs
from hybrid_mm.run.tta import set_test_time_augmentation


def test_init_cfg_is_taken_out_at_any_depth():
    init = dict(type='Pretrained', checkpoint='x.pth')
    spec = ConfigDict(
        type='A',
        init_cfg=init,
        backbone=dict(depth=5, init_cfg=None, stages=(1, 2)),
        heads=[dict(type='B', init_cfg=[init], loss=dict(init_cfg=init, weight=2.0)), 3],
        pair=(dict(init_cfg=init), 'init_cfg'),
    )
    found = without_init_cfg(spec)
    assert type(found) is ConfigDict
    assert found == dict(
        type='A',
        backbone=dict(depth=5, stages=(1, 2)),
        heads=[dict(type='B', loss=dict(weight=2.0)), 3],
        pair=({}, 'init_cfg'),
    )
    assert spec.heads[0].init_cfg == [init]


def test_modules_of_an_option():
    spec = literal_spec("dict(type='X', a=[1, (2, 3)], b=dict(c=None, d=dict()), e=-1.5)")
    assert spec == dict(type='X', a=[1, (2, 3)], b=dict(c=None, d={}), e=-1.5)
    assert literal_spec("{'type': 'X', 'a': 1}") == dict(type='X', a=1)
    for text, message in (
        ('dict(a=1)', 'has no type'),
        ("dict(type='X', a=open('x'))", 'of literals'),
        ("dict([('type', 'X')])", 'of literals'),
        ('dict(', 'of literals'),
    ):
        with pytest.raises(UserError, match=message) as caught:
            literal_spec(text, '--with ')
        assert str(caught.value).startswith('--with ')


def test_a_list_for_an_item_of_a_list(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text('model = dict(a=[dict(b=1)])\n')
    with pytest.raises(UserError, match='the item of a list is a dict, not a list'):
        load_config(str(path), {'model.a.0': [dict(b=2)]})


def test_an_error_of_the_parser_alone_is_tried_again(tmp_path, monkeypatch):
    path = tmp_path / 'c.py'
    path.write_text('a = 1\n')
    read = Config.fromfile
    left = ['AST constructor recursion depth mismatch (before=180, after=195)', 'another']

    def fails(file):
        if left:
            raise SystemError(left.pop(0))
        return read(file)

    monkeypatch.setattr(Config, 'fromfile', fails)
    with pytest.raises(UserError, match='SystemError: another'):
        load_config(str(path))
    left.append('AST constructor recursion depth mismatch (before=6, after=9)')
    assert load_config(str(path)).a == 1


def test_arguments_for_a_script():
    cfg = SimpleNamespace(filename='a/b.py')
    assert with_options(cfg, ['x'], None) == ['a/b.py', 'x']
    assert with_options(cfg, ['x'], {'a.b': 3, 'c': [1]}) == [
        *('a/b.py', 'x', '--cfg-options', 'a.b=3', 'c=[1]')
    ]
    assert Path(config_root()).name == 'configs'


def of_mmrotate(**model):
    return Config(dict(default_scope='mmrotate', model=dict(model, backbone=dict(type='X'))))


def test_models_of_one_package_in_configs_of_another():
    for kind in ('mmdet.FasterRCNN', 'H2RBoxDetector', 'mmrotate.H2RBoxDetector'):
        assert (library_of(of_mmrotate(type=kind)), task_of(of_mmrotate(type=kind))) == (
            *('mmrotate', 'detection'),
        )
    assert library_of(of_mmrotate(type='mmseg.EncoderDecoder')) == 'mmseg'
    assert library_of(Config(dict(default_scope='mmdet', model=dict(type='A')))) == 'mmdet'
    assert library_of(Config(dict(default_scope='x', model=dict(type='mmdet.A')))) == 'mmdet'
    with pytest.raises(UserError, match='rotated boxes'):
        set_test_time_augmentation(of_mmrotate(type='mmdet.FasterRCNN'))


def test_packages_that_are_missing_or_refuse_others(tmp_path, monkeypatch):
    cfg = of_mmrotate(type='mmdet.FasterRCNN')
    monkeypatch.setattr(config, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'mmrotate is not installed.*docs/other_projects'):
        require_library(cfg)
    monkeypatch.undo()
    (tmp_path / 'mmrotate').mkdir()
    (tmp_path / 'mmrotate/__init__.py').write_text("assert False, 'MMCV 9 is incompatible.'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmrotate']:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r'cannot be imported: MMCV 9 is incompatible\. docs/other'):
        require_library(cfg)


def test_configs_that_are_not_installed(monkeypatch):
    assert installed_configs() == config_root()
    monkeypatch.setattr(config_folder, 'config_root', lambda: None)
    with pytest.raises(UserError, match='the configs of hybrid_mm are not installed'):
        installed_configs()
