"""Checks before a run, and what the tools share: the borders of each."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, Registry, build_from_cfg

from hybrid_mm.data.coco_check import coco_categories
from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError, nearest, shorten, warn
from hybrid_mm.run import options, upstream
from hybrid_mm.run.checks import data, settings
from hybrid_mm.run.config import config_root, literal_spec, with_options
from hybrid_mm.run.explain import arguments, explain
from hybrid_mm.run.tool import debugging, tool

# ---------------------------------------------------------------- messages of wrong configs

PARTS = Registry('part', scope='test_checks')


@PARTS.register_module()
class Inner:
    def __init__(self, width=1, depth=2):
        if width < 0:
            raise ValueError('width is negative')


@PARTS.register_module()
class Middle(Inner):
    def __init__(self, part=None, width=5, **kwargs):
        super().__init__(width=width, **kwargs)
        self.part = part and PARTS.build(part)


@PARTS.register_module()
class Outer:
    def __init__(self, part):
        self.part = PARTS.build(part)


@pytest.mark.parametrize(('inner', 'expected'), [
    (dict(type='Inner', widht=3), "Inner has no argument 'widht'; did you mean width?"),
    (dict(type='Inner', width=-3), 'cannot build Inner: width is negative'),
    (dict(type='Iner'), "type 'Iner' is not a registered part; did you mean Inner?"),
    (dict(type='Middle', dept=1), "Middle has no argument 'dept'; did you mean depth?"),
])  # fmt: skip
def test_the_innermost_part_is_named(inner, expected):
    for spec in (
        inner,
        dict(type='Outer', part=inner),
        dict(type='Middle', part=dict(type='Outer', part=inner)),
    ):
        with pytest.raises((TypeError, ValueError, KeyError)) as caught:
            build_from_cfg(spec, PARTS)
        text = explain(caught.value)
        assert text is not None and text.startswith(expected), text


def test_other_errors_keep_their_traceback():
    for error in (RuntimeError('x'), ValueError('x')):
        with pytest.raises(type(error)) as caught:
            raise error
        assert explain(caught.value) is None

    def backward():
        raise RuntimeError('a fault of ours')

    PARTS.register_module(name='backward', module=backward, force=True)
    with pytest.raises(RuntimeError) as caught:
        build_from_cfg(dict(type='backward'), PARTS)
    assert explain(caught.value) is None


def test_defaults_are_those_of_the_class_itself():
    assert arguments(Middle) == dict(width=5, depth=2, part=None)
    assert arguments(Inner) == dict(width=1, depth=2)

    def function(a, b=3, *args, **kwargs):
        pass

    assert set(arguments(function)) == {'a', 'b'} and arguments(function)['b'] == 3


# ---------------------------------------------------------------- data and classes


def test_categories_at_any_place_of_the_file(tmp_path):
    """Behind a lookalike, and longer than what is read at once."""
    names = [f'category number {i} of many' for i in range(1500)]
    categories = [dict(id=i, name=name, supercategory='x' * 30) for i, name in enumerate(names)]
    assert len(json.dumps(categories)) > 2 << 16
    path = tmp_path / 'x.json'
    for content in (
        dict(categories=categories, images=[dict(id=1)] * 5),
        dict(info=dict(categories=[1, 2]), images=[dict(id=1)] * 5000, categories=categories),
    ):
        path.write_text(json.dumps(content))
        assert coco_categories(str(path)) == names
    path.write_text(json.dumps(dict(images=[], categories=categories[:2])))
    assert coco_categories(str(path)) == names[:2]
    path.write_text('{"images": []}')
    assert coco_categories(str(path)) is None


def segmentation(root, label, **changes):
    """A config whose label maps hold labels up to a number."""
    folder = root / 'maps'
    folder.mkdir(exist_ok=True)
    labels = np.zeros((5, 7), np.uint8)
    labels[1, 2] = label
    cv2.imwrite(str(folder / 'a.png'), labels)
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(seg_map_path='maps'),
        metainfo=dict(classes=('a', 'b', 'c')),
        **changes,
    )
    model = dict(decode_head=dict(num_classes=3), backbone=dict(num_classes=9))
    loader = dict(dataset=dataset)
    return Config(dict(default_scope='mmseg', model=model, train_dataloader=loader))


@pytest.mark.parametrize(('label', 'changes', 'allowed'), [
    (2, dict(), True),
    (3, dict(), False),
    (255, dict(), True),
    (3, dict(reduce_zero_label=True), True),
    (4, dict(reduce_zero_label=True), False),
    (254, dict(), False),
    (254, dict(ignore_index=254), True),
    (255, dict(ignore_index=254), True),
    (253, dict(ignore_index=254), False),
])  # fmt: skip
def test_labels_at_the_border(tmp_path, label, changes, allowed):
    cfg = segmentation(tmp_path, label, **changes)
    if allowed:
        data.check_data(cfg, 'train_dataloader')
        return
    shifted = bool(changes.get('reduce_zero_label'))
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    assert f'has the label {label}; 3 classes with reduce_zero_label={shifted}' in str(caught.value)
    assert f'allow 0..{2 + shifted} and {changes.get("ignore_index", 255)}' in str(caught.value)


def test_numbers_of_classes_in_all_heads(tmp_path):
    cfg = segmentation(tmp_path, 0)
    cfg.model = dict(
        rpn_head=dict(num_classes=1),  # objects or not
        backbone=dict(num_classes=1000),
        roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=3)]),
        auxiliary_head=dict(num_classes=3),
    )
    data.check_data(cfg, 'train_dataloader')
    cfg.model.roi_head.bbox_head[1].num_classes = 4
    cfg.model.auxiliary_head.num_classes = 2
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    text = str(caught.value)
    assert text.startswith('model.roi_head.bbox_head.1.num_classes is 4, but the data set of train')
    options = 'model.roi_head.bbox_head.1.num_classes=3 model.auxiliary_head.num_classes=3'
    assert text.endswith(f'use --cfg-options {options}')


def test_a_few_label_maps_are_looked_at_all_over_the_folder(tmp_path):
    cfg = segmentation(tmp_path, 0)
    for i in range(40):
        (tmp_path / 'maps' / f'{i:02d}.png').write_bytes((tmp_path / 'maps/a.png').read_bytes())
    bad = np.full((5, 7), 9, np.uint8)
    for number in (0, 20, 35):
        path = tmp_path / 'maps' / f'{number:02d}.png'
        before = path.read_bytes()
        cv2.imwrite(str(path), bad)
        with pytest.raises(UserError, match=rf'{number:02d}\.png has the label 9'):
            data.check_data(cfg, 'train_dataloader')
        path.write_bytes(before)
    cv2.imwrite(str(tmp_path / 'maps' / '00.png'), np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(UserError, match=r'no label map .*\(5, 7, 3\)'):
        data.check_data(cfg, 'train_dataloader')


def test_numbers_that_must_be_positive(det_config):
    for path, bad in (
        ('train_cfg.max_iters', 0),
        ('train_cfg.max_epochs', -1),
        ('train_cfg.val_interval', 0.5),
        ('train_dataloader.batch_size', 0),
        ('val_dataloader.batch_size', 0),
        ('val_dataloader.batch_size', 'two'),
        ('train_dataloader.batch_size', True),
    ):
        cfg = Config.fromfile(det_config)
        settings.check_settings(cfg)
        cfg.merge_from_dict({path: 1})
        settings.check_settings(cfg)
        cfg.merge_from_dict({path: bad})
        with pytest.raises(UserError, match=f'^{path} must be a positive number, got {bad!r}$'):
            settings.check_settings(cfg)


def test_channels_of_neck_and_backbone():
    def check(given, wanted):
        backbone = SimpleNamespace(out_channels=given)
        model = SimpleNamespace(backbone=backbone)
        cfg = ConfigDict(model=dict(neck=dict(in_channels=wanted)))
        settings.check_channels(SimpleNamespace(model=model, cfg=cfg))

    check((8, 16, 32), [8, 16, 32])
    check((8, 16, 32), 32)  # of a neck that takes one map
    for wanted in ([8, 16], [8, 32, 16], [8, 16, 32, 64], [16, 32]):
        with pytest.raises(UserError, match=r'use --cfg-options model\.neck\.in_channels=8,16,32$'):
            check((8, 16, 32), wanted)


def test_classes_of_the_config_for_scripts_of_a_library(tmp_path, monkeypatch):
    """Its own METAINFO gives way to what the config names, and comes back."""
    cls = DATASETS.get('mmseg.CityscapesDataset')
    before = cls.METAINFO
    seen = tmp_path / 'seen.txt'
    tools = tmp_path / 'mmseg' / '.mim' / 'tools'
    tools.mkdir(parents=True)
    (tools / 'script.py').write_text(
        'import sys\nfrom mmengine.registry import DATASETS\n'
        'meta = DATASETS.get("mmseg.CityscapesDataset").METAINFO\n'
        f'open({str(seen)!r}, "w").write(repr((sys.argv[1:], meta["classes"])))\n'
    )
    spec = SimpleNamespace(origin=str(tmp_path / 'mmseg' / '__init__.py'))
    monkeypatch.setattr(upstream.importlib.util, 'find_spec', lambda name: spec)
    dataset = dict(type='CityscapesDataset', metainfo=dict(classes=('mine', 'yours')))
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
    upstream.run_upstream(cfg, dict(mmseg='script.py'), ['a', '--b'])
    assert seen.read_text() == repr((['a', '--b'], ['mine', 'yours']))
    assert cls.METAINFO is before
    with pytest.raises(UserError, match='installed without its tools'):
        upstream.run_upstream(cfg, dict(mmseg='other.py'), [])


# ---------------------------------------------------------------- what the tools share


def test_images_of_a_folder(tmp_path):
    names = ('b.JPG', 'sub/a.png', 'c.Tiff', 'a.jpeg', 'sub/z.webp', 'd.bmp')
    for name in (*names, 'x.txt', 'sub/y.pngx', 'jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    expected = ('a.jpeg', 'b.JPG', 'c.Tiff', 'd.bmp', 'sub/a.png', 'sub/z.webp')
    assert find_images(tmp_path) == [tmp_path / name for name in expected]
    assert find_images(tmp_path / 'x.txt') == [tmp_path / 'x.txt']  # named: taken as it is
    with pytest.raises(UserError, match=r'none does not exist'):
        find_images(tmp_path / 'none')


def test_one_process_warns(capsys, monkeypatch):
    for rank, warns in ((None, True), ('0', True), ('1', False), ('7', False)):
        monkeypatch.setenv('RANK', rank or '')
        if rank is None:
            monkeypatch.delenv('RANK')
        warn('careful')
        assert capsys.readouterr().err == ('warning: careful\n' if warns else '')


def test_status_and_messages_of_a_tool(capsys, monkeypatch):
    monkeypatch.delenv('HYBRID_MM_DEBUG', raising=False)

    @tool
    def main(argv):
        if argv[0] == 'user':
            raise UserError('wrong')
        if argv[0] == 'bug':
            raise ZeroDivisionError
        return dict(none=None, three=3)[argv[0]]

    assert (main(['none']), main(['three']), main(['user'])) == (0, 3, 2)
    assert capsys.readouterr().err == 'error: wrong\n'
    with pytest.raises(ZeroDivisionError):
        main(['bug'])
    for value, raises in (('1', True), ('0', False), ('', False)):
        monkeypatch.setenv('HYBRID_MM_DEBUG', value)
        assert debugging([]) == raises
    assert debugging(['x', '--debug'])
    monkeypatch.setenv('RANK', '3')
    assert main(['user']) == 2
    assert capsys.readouterr().err == '[rank 3] error: wrong\n'


def test_names_next_to_one():
    names = ('AdamW', 'Adam', 'SGD', 'Adamax')
    assert nearest('admw', names) == '; did you mean AdamW, Adam, Adamax?'
    assert nearest('sgd', names) == '; did you mean SGD?'
    assert nearest('lion', names) == ''
    assert shorten(list('abcdef')) == 'a, b, c, d, e, f'
    assert shorten(list('abcdefg')) == 'a, b, c, d, e, f, ...'
    assert shorten(list('abc'), 2) == 'a, b, ...'


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


def test_amp_and_tracking_before_the_config():
    parser = options.parser('x')
    parser.add_argument('config')
    options.add_run_options(parser)
    options.add_tracking_options(parser)
    for line, amp, wandb in (
        (['a.py'], None, None),
        (['--amp', 'a.py'], 'auto', None),
        (['--amp', 'bfloat16', 'a.py'], 'bfloat16', None),
        (['a.py', '--amp'], 'auto', None),
        (['--wandb', 'a.py', '--amp', 'float16'], 'float16', 'hybrid_mm'),
        (['--wandb', 'mine', 'a.py'], None, 'mine'),
    ):
        args = parser.parse_args(line)
        assert (args.config, args.amp, args.wandb) == ('a.py', amp, wandb)
        assert (args.launcher, args.seed, args.local_rank) == ('none', None, 0)
    args = parser.parse_args(['a.py', '--cfg-options', 'a.b=[1,2]', 'c=(x,y)', 'd=1e-4'])
    assert args.cfg_options == {'a.b': [1, 2], 'c': ('x', 'y'), 'd': 1e-4}


def test_device():
    assert options.torch_device('cpu') == torch.device('cpu')
    with pytest.raises(UserError, match='--device nonsense is not usable here'):
        options.torch_device('nonsense')


def test_arguments_for_a_script():
    cfg = SimpleNamespace(filename='a/b.py')
    assert with_options(cfg, ['x'], None) == ['a/b.py', 'x']
    assert with_options(cfg, ['x'], {'a.b': 3, 'c': [1]}) == [
        *('a/b.py', 'x', '--cfg-options', 'a.b=3', 'c=[1]')
    ]
    assert Path(config_root()).name == 'configs'
