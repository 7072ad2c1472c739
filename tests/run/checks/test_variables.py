"""Options that change a variable which the config has used already."""

import re
import sys

import pytest

from hybrid_mm.errors import UserError
from hybrid_mm.run.config import load_config

BASE = """
data_root, backend = 'data/', None
max_iters = 100
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (64, 64)
image = dict(scale=(9, 8), keep=True)
pipeline = [dict(type='Load'), dict(type='Crop', size=crop_size), dict(type='Resize', **image)]
data_preprocessor = dict(type='P', size=crop_size)
model = dict(type='mmseg.X', data_preprocessor=data_preprocessor,
             head=dict(norm_cfg=norm_cfg), heads=[dict(norm_cfg=norm_cfg), dict()])
train_dataloader = dict(dataset=dict(root=data_root, file=data_root + 'a.json', p=pipeline))
test_dataloader = train_dataloader
train_cfg = dict(max_iters=max_iters)
param_scheduler = [dict(end=max_iters // 2), dict(end=max_iters)]
flag = True
"""
CHILD = """
_base_ = './base.py'
length = {{_base_.max_iters}}
train_cfg = dict(val_interval={{_base_.max_iters}})
val_cfg = dict(begin=length)
custom = _base_.crop_size
custom_hooks = [dict(size=_base_.crop_size), dict(text='{{_base_.max_iters}}',
                     half=_base_.max_iters // 2)]
model = dict(heads=[dict(num=1)])
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'child.py').write_text(CHILD)
    return lambda name, **options: load_config(str(tmp_path / f'{name}.py'), options or None)


@pytest.mark.parametrize(('name', 'key', 'value', 'expected'), [
    ('base', 'max_iters', 60, 'set train_cfg.max_iters=60 param_scheduler.1.end=60, and what was '
     'computed from it: param_scheduler.0.end'),
    ('base', 'crop_size', (1, 2), 'set model.data_preprocessor.size="[1,2]" '
     'train_dataloader.dataset.p.1.size="[1,2]" test_dataloader.dataset.p.1.size="[1,2]"'),
    ('base', 'norm_cfg.type', 'BN',
     'set model.head.norm_cfg.type=BN model.heads.0.norm_cfg.type=BN'),
    ('base', 'data_preprocessor.size', 3, 'set model.data_preprocessor.size=3'),
    ('base', 'pipeline.1.size', 3,
     'set train_dataloader.dataset.p.1.size=3 test_dataloader.dataset.p.1.size=3'),
    ('base', 'image.keep', False,
     'set train_dataloader.dataset.p.2.keep=False test_dataloader.dataset.p.2.keep=False'),
    ('child', 'max_iters', 60, 'set train_cfg.max_iters=60 train_cfg.val_interval=60 '
     'param_scheduler.1.end=60 val_cfg.begin=60, and what was computed from it: '
     'custom_hooks.1.half, param_scheduler.0.end'),
    ('base', 'data_root', 'x', 'set train_dataloader.dataset.root=x test_dataloader.dataset.root=x '
     'train_dataloader.dataset.file=x/a.json test_dataloader.dataset.file=x/a.json'),
    ('child', 'length', 60,
     'set val_cfg.begin=60'),
    ('child', 'norm_cfg.type', 'BN', 'set model.head.norm_cfg.type=BN'),
])  # fmt: skip
def test_where_the_value_went(config, name, key, value, expected):
    with pytest.raises(UserError) as caught:
        config(name, **{key: value})
    start, _, found = str(caught.value).partition('; ')
    variable = key.partition('.')[0]
    assert start == (
        f'--cfg-options {key}: the config has used the variable {variable} already, so that '
        'nothing would change'
    )
    split = [text.split(' ') for text in (found, expected)]
    assert [sorted(word.strip(',') for word in words) for words in split[:1]] == [
        sorted(word.strip(',') for word in words) for words in split[1:]
    ]


def test_options_that_change_something_pass(config, capsys):
    assert config('base', **{'train_cfg.max_iters': 5}).train_cfg.max_iters == 5
    assert config('base', **{'model.head.norm_cfg.type': 'BN'}).model.head.norm_cfg.type == 'BN'
    paths = {'train_cfg.max_iters': 5, 'param_scheduler.1.end': 5}
    assert config('base', max_iters=5, **paths).max_iters == 5
    assert capsys.readouterr().err == ''
    # perhaps a hook of the user reads it
    assert config('base', flag=False).flag is False
    assert 'nothing in the config uses flag' in capsys.readouterr().err
    with pytest.raises(UserError, match="has no key 'max_itres'; did you mean max_iters"):
        config('base', max_itres=3)


def test_hints_at_keys_further_down(config, capsys):
    for name, key, hint in (
        ('base', 'crop_sise', 'did you mean crop_size?'),
        ('base', 'head.norm_cfg.type', 'did you mean model.head.norm_cfg.type?'),
        ('child', 'val_interval', 'did you mean train_cfg.val_interval?'),
        ('base', 'size', 'did you mean model.data_preprocessor.size, '
         'train_dataloader.dataset.p.1.size, test_dataloader.dataset.p.1.size?'),
        ('base', 'runner.max_iters', 'did you mean train_cfg.max_iters?'),
        ('base', 'seed', 'did you mean randomness.seed?'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf'has no key \S+; {re.escape(hint)}$'):
            config(name, **{key: 3})
    assert config('base', **{'model.normalize': 1}).model.normalize == 1  # is like none
    assert capsys.readouterr().err == ''


def test_what_is_computed_may_be_set(config):
    paths = {'train_dataloader.dataset': dict(root='x'), 'test_dataloader': None}
    assert config('base', data_root='x', **paths).data_root == 'x'
    with pytest.raises(UserError, match='already'):
        config('base', data_root='x', **{'test_dataloader': None})


def test_the_preprocessor_of_the_model_is_preferred(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text('model = dict(data_preprocessor=dict(size=1))')
    with pytest.raises(UserError, match=r'set model\.data_preprocessor\.size=3$'):
        load_config(str(path), {'data_preprocessor.size': 3})


def test_custom_imports_of_options(tmp_path, monkeypatch):
    (tmp_path / 'a_module_of_mine.py').write_text('')
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / 'config.py'
    path.write_text('model = dict()')
    load_config(str(path), {'custom_imports.imports': ['a_module_of_mine']})
    assert sys.modules.pop('a_module_of_mine')
    with pytest.raises(UserError, match=r"custom_imports: .*named 'none_of_mine'.*insta"):
        load_config(str(path), {'custom_imports.imports': 'none_of_mine'})


def test_names_of_the_environment_are_said(tmp_path, monkeypatch):
    monkeypatch.delenv('SOME_ROOT', raising=False)
    path = tmp_path / 'config.py'
    path.write_text("data_root = '{{$SOME_ROOT:data/x}}/'\nwork_dir = data_root\n")
    with pytest.raises(UserError, match=r'set work_dir=y; or .* variable SOME_ROOT$'):
        load_config(str(path), dict(data_root='y'))


def test_pure_python_configs(tmp_path):
    (tmp_path / 'lazy_base.py').write_text(
        'from mmengine.runner import EpochBasedTrainLoop\nmax_epochs = 7\n'
        'train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs)\n'
    )
    path = tmp_path / 'lazy.py'
    path.write_text('from mmengine.config import read_base\nwith read_base():\n'
                    '    from .lazy_base import *\n')  # fmt: skip
    with pytest.raises(UserError, match=r'set train_cfg\.max_epochs=3$'):
        load_config(str(path), dict(max_epochs=3))
    path.write_text(path.read_text() + 'val_cfg = dict(begin=max_epochs - 1)\n'
                    'train_cfg.update(dict(val_interval=max_epochs))\n')  # fmt: skip
    with pytest.raises(UserError) as caught:
        load_config(str(path), dict(max_epochs=3))
    for part in ('train_cfg.max_epochs=3', 'train_cfg.val_interval=3', 'computed from it: val_cfg'):
        assert part in str(caught.value)
    path.write_text('from mmengine.config import read_base\nwith read_base():\n'
                    '    from .lazy_base import max_epochs as length\n'
                    'train_cfg = dict(max_epochs=length)\n')  # fmt: skip
    with pytest.raises(UserError, match=r'set train_cfg\.max_epochs=3$'):
        load_config(str(path), dict(length=3))
