"""What ``python -m hybrid_mm new`` writes, value by value, and the rules that choose the values."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from hybrid_mm.backbones import VAN
from hybrid_mm.data.deep_images import Depth
from hybrid_mm.errors import UserError
from hybrid_mm.registry import TRANSFORMS
from hybrid_mm.weights import registry as registry_module
from hybrid_mm.zoo import new_backbone, new_config
from hybrid_mm.zoo.heads import NEW_HEADS, check_head
from hybrid_mm.zoo.metafile import Model
from hybrid_mm.zoo.new_backbone import Backbone, find_backbone
from hybrid_mm.zoo.new_config import summary, write_config
from hybrid_mm.zoo.plan import make_plan
from hybrid_mm.zoo.splits import Split, UserData

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(embed_dims=[8, 16, 24, 32], depths=[1] * 4, mlp_ratios=[2] * 4)
SETTINGS = dict(type='hybrid_mm.VAN', arch='b0', drop_path_rate=0.15)
BACKBONE = Backbone('van-b0', SETTINGS, [32, 64, 160, 256], 'some_config', [])


def data_set(layout: str, count: int, size=(1000, 600), **settings) -> UserData:
    """A data set of two classes of which nothing is on the disk."""
    coco = layout == 'coco'
    labels = 'annotations/{}.json' if coco else 'masks/{}'
    splits = {
        name: Split(f'images/{name}', labels.format(name), number)
        for name, number in (('train', count), ('val', 7))
    }
    if not coco:
        settings = dict(suffixes=('.jpg', '_mask.png'), ignore=254, **settings)
    return UserData(Path('/some/data'), layout, ['cat', 'dog'], splits, size, **settings)


def written(folder: Path, data: UserData, head: str, plan, backbone=BACKBONE, weights=None):
    """The config as it is read back."""
    out = folder / 'mine.py'
    out.unlink(missing_ok=True)
    write_config(str(out), data, head, backbone, plan, 'the command', weights)
    return Config.fromfile(out)


# ---- rules


def test_plan_of_boxes():
    """Numbers by hand: sides are multiples of 32, the shorter one from 320 to 800."""
    for size, count, batch, scale, steps, rate in (
        # 600 is 18.75 x 32: 19; 1000 x 608 / 600 is 31.67 x 32: 32. 10,000 steps x 2 / 1000
        ((1000, 600), 1000, None, (1024, 608), 20, 1e-4 * 8**-0.5),
        # as large as COCO: its 12 epochs; the rate without a root
        ((4000, 3000), 118_000, 16, (1056, 800), 12, 1e-4),
        # upright and small; 10,000 x 2 / 8 epochs would be 2,500
        ((100, 200), 8, 2, (640, 320), 100, 1e-4 * 8**-0.5),
        # wide: 800 would give 2400; 10,000 x 4 / 4,001 epochs are 10
        ((3000, 1000), 4001, 4, (1333, 800), 12, 5e-5),
        # rounded up: 10,000 x 4 / 1,001 is 39.96
        ((640, 480), 1001, 4, (640, 480), 40, 5e-5),
    ):
        plan = make_plan(data_set('coco', count, size), batch)
        assert (plan.scale, plan.crop, plan.batch) == (scale, None, batch or 2), size
        assert plan.steps == steps
        assert plan.rate == pytest.approx(rate)
    plan = make_plan(data_set('coco', 100), 2, (96, 64))
    assert plan.scale == (96, 64)


def test_plan_of_label_maps():
    """Numbers by hand: shorter side from 256 to 1024, crops of at most 512, multiples of 32."""
    for size, count, batch, scale, crop, steps, rate in (
        # ADE20K: 100 epochs are 505,250 steps
        ((500, 375), 20_210, None, (500, 375), (352, 480), 160_000, 5e-5),
        # 100 epochs are 12,500 steps
        ((375, 500), 1000, 8, (500, 375), (352, 480), 13_000, 1e-4 * 2**-0.5),
        # 100 x 256 / 120: 307; 100 epochs are 2,500 steps
        ((120, 100), 100, 4, (307, 256), (256, 288), 4000, 5e-5),
        ((3000, 2000), 400, 1, (1536, 1024), (512, 512), 40_000, 2.5e-5),
        # wide: 3000 is too long
        ((3000, 1000), 400, 16, (2048, 1000), (512, 512), 4000, 1e-4),
    ):
        plan = make_plan(data_set('masks', count, size), batch)
        assert (plan.scale, plan.crop, plan.batch) == (scale, crop, batch or 4), size
        assert plan.steps == steps
        assert plan.rate == pytest.approx(rate)
    plan = make_plan(data_set('masks', 100), 4, (128, 96))
    assert (plan.scale, plan.crop) == ((128, 96), (96, 128))


# ---- files


def ours(cfg: Config, head: str, task: str) -> dict:
    """What the file says beside its model and the base of the runtime."""
    base = Config.fromfile(CONFIGS / f'_base_/default_runtime_{task}.py').to_dict()
    found = cfg.to_dict()
    for key in Config.fromfile(CONFIGS / '_base_/models' / NEW_HEADS[head].base):
        del found[key]
    assert found.keys() >= base.keys()
    for key, value in base.items():
        if key != 'default_hooks':
            assert found.pop(key) == value, key
    hooks = found.pop('default_hooks')
    checkpoint = hooks.pop('checkpoint')
    before = base['default_hooks'].pop('checkpoint')
    assert hooks == base['default_hooks']
    found['checkpoint'] = {k: v for k, v in checkpoint.items() if before.get(k) != v}
    return found


LOAD = dict(type='LoadImageFromFile')
META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
WORKERS = dict(num_workers=2, persistent_workers=True)
ORDERED = dict(sampler=dict(type='DefaultSampler', shuffle=False))
LOOPS = dict(val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'))


@pytest.mark.parametrize('head', ['mask-rcnn', 'cascade-mask-rcnn', 'retinanet'])
def test_files_for_boxes(head, tmp_path):
    """1001 images in batches of 4: 251 steps an epoch, 40 epochs, 10,040 steps."""
    masks = head != 'retinanet'
    data = data_set('coco', 1001)
    cfg = written(tmp_path, data, head, make_plan(data, 4))
    annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)
    resize = dict(type='Resize', scale=(1024, 608), keep_ratio=True)
    train = [
        LOAD,
        annotations,
        resize,
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    test = [LOAD, resize, annotations, dict(type='PackDetInputs', meta_keys=META)]
    metainfo = dict(classes=('cat', 'dog'))
    common = dict(type='CocoDataset', metainfo=metainfo, data_root='/some/data')
    tested = dict(
        batch_size=1,
        drop_last=False,
        **WORKERS,
        **ORDERED,
        dataset=dict(
            **common,
            ann_file='annotations/val.json',
            data_prefix=dict(img='images/val'),
            test_mode=True,
            pipeline=test,
        ),
    )
    metric = dict(
        type='CocoMetric',
        ann_file='/some/data/annotations/val.json',
        metric=['bbox', 'segm'] if masks else 'bbox',
    )
    assert ours(cfg, head, 'det') == dict(
        data_root='/some/data',
        metainfo=metainfo,
        scale=(1024, 608),
        max_epochs=40,
        train_pipeline=train,
        test_pipeline=test,
        train_dataloader=dict(
            batch_size=4,
            **WORKERS,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='AspectRatioBatchSampler'),
            dataset=dict(
                **common,
                ann_file='annotations/train.json',
                data_prefix=dict(img='images/train'),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train,
            ),
        ),
        val_dataloader=tested,
        test_dataloader=tested,
        val_evaluator=metric,
        test_evaluator=metric,
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=3),
        **LOOPS,
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.999), weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0),
            clip_grad=dict(max_norm=1.0),
        ),
        param_scheduler=[
            # a twentieth of the steps
            dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=502),
            # 8/12 and 11/12 of the epochs, as COCO's
            dict(
                type='MultiStepLR', by_epoch=True, begin=0, end=40, milestones=[26, 36], gamma=0.1
            ),
        ],
        checkpoint=dict(
            interval=3, save_best=f'coco/{"segm" if masks else "bbox"}_mAP', rule='greater'
        ),
        auto_scale_lr=dict(enable=False, base_batch_size=4),
    )


def test_schedules_of_boxes(tmp_path):
    """Epochs, steps of the rate, warm-up and interval of small and large data sets."""
    for count, batch, epochs, milestones, warmup, interval in (
        (8, 2, 100, [66, 91], 20, 8),  # 4 steps an epoch, 400 in all
        (1, 2, 100, [66, 91], 5, 8),
        (118_000, 16, 12, [8, 11], 1000, 1),  # a twentieth of 88,500 would be 4,425
        (2100, 4, 20, [13, 18], 525, 1),  # 525 x 20 / 20
    ):
        data = data_set('coco', count)
        cfg = written(tmp_path, data, 'retinanet', make_plan(data, batch))
        warm, steps = cfg.param_scheduler
        assert cfg.train_cfg.max_epochs == steps.end == cfg.max_epochs == epochs, count
        assert (steps.milestones, warm.end) == (milestones, warmup), count
        assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval
        assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == batch


@pytest.mark.parametrize('layout', ['coco', 'masks'])
def test_images_of_twelve_bits(layout, tmp_path):
    """They are loaded in full, and what is done is said."""
    head = dict(coco='retinanet', masks='semantic-fpn')[layout]
    depth = Depth(16, (0, 4095), 9, grey=True)
    data = data_set(layout, 1000, depth=depth, note='The label 0 (void) is ignored.', shifted=True)
    plan = make_plan(data, 8)
    cfg = written(tmp_path, data, head, plan)
    load = dict(type='hybrid_mm.LoadDeepImage', value_range=(0, 4095))
    assert cfg.train_pipeline[0] == cfg.test_pipeline[0] == load
    assert TRANSFORMS.build(load).value_range == (0, 4095)
    for text in ((tmp_path / 'mine.py').read_text(), summary(data, BACKBONE, plan)):
        words = ' '.join(text.replace('#', ' ').split())
        assert 'The images have one channel, which is repeated three times.' in words
        assert 'have 16 bits: values from 0 to 4,095, between which are 99.8% of the pix' in words
    if layout == 'masks':
        assert cfg.train_dataloader.dataset.reduce_zero_label is True
        assert cfg.val_dataloader.dataset.reduce_zero_label is True
        assert '# The label 0 (void) is ignored.' in (tmp_path / 'mine.py').read_text()


@pytest.mark.parametrize('head', ['upernet', 'semantic-fpn'])
def test_files_for_label_maps(head, tmp_path):
    """1000 images in batches of 8, of which 254 is ignored: 13,000 steps."""
    data = data_set('masks', 1000, (500, 375))
    cfg = written(tmp_path, data, head, make_plan(data, 8))
    annotations = dict(type='LoadAnnotations')
    train = [
        LOAD,
        annotations,
        dict(type='RandomResize', scale=(500, 375), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(352, 480), cat_max_ratio=0.75, ignore_index=254),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    resize = dict(type='Resize', scale=(500, 375), keep_ratio=True)
    test = [LOAD, resize, annotations, dict(type='PackSegInputs')]
    metainfo = dict(classes=('cat', 'dog'))
    common = dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root='/some/data',
        img_suffix='.jpg',
        seg_map_suffix='_mask.png',
        ignore_index=254,
    )
    tested = dict(
        batch_size=1,
        **WORKERS,
        **ORDERED,
        dataset=dict(
            **common,
            data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
            pipeline=test,
        ),
    )
    metric = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=254)
    assert ours(cfg, head, 'seg') == dict(
        data_root='/some/data',
        metainfo=metainfo,
        ignore_index=254,
        scale=(500, 375),
        crop_size=(352, 480),
        max_iters=13_000,
        train_pipeline=train,
        test_pipeline=test,
        dataset=common,
        train_dataloader=dict(
            batch_size=8,
            **WORKERS,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(
                **common,
                data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
                pipeline=train,
            ),
        ),
        val_dataloader=tested,
        test_dataloader=tested,
        val_evaluator=metric,
        test_evaluator=metric,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=13_000, val_interval=1300),
        **LOOPS,
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=7.07e-5, betas=(0.9, 0.999), weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1300),
            dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1300, end=13_000),
        ],
        checkpoint=dict(interval=1300, save_best='mIoU', rule='greater'),
        auto_scale_lr=dict(enable=False, base_batch_size=8),
    )


def test_schedules_of_label_maps(tmp_path):
    for count, batch, steps, warmup, interval in (
        (100, 4, 4000, 400, 400),
        (20_210, 4, 160_000, 1500, 16_000),
    ):
        data = data_set('masks', count)
        cfg = written(tmp_path, data, 'upernet', make_plan(data, batch))
        warm, poly = cfg.param_scheduler
        assert cfg.train_cfg.max_iters == cfg.max_iters == poly.end == steps
        assert (warm.begin, warm.end, poly.begin) == (0, warmup, warmup)
        assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval


def flat(node, prefix: str = '') -> dict:
    """Leaves by dotted key."""
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list | tuple) and any(isinstance(item, dict) for item in node):
        items = enumerate(node)
    else:
        return {prefix: node}
    return {
        k: v
        for key, item in items
        for k, v in flat(item, f'{prefix}.{key}' if prefix else str(key)).items()
    }


CHANNELS = [32, 64, 160, 256]
CHANGED = {
    'mask-rcnn': {
        'neck.in_channels': CHANNELS,
        'roi_head.bbox_head.num_classes': 2,
        'roi_head.mask_head.num_classes': 2,
    },
    'cascade-mask-rcnn': {
        'neck.in_channels': CHANNELS,
        **{f'roi_head.bbox_head.{i}.num_classes': 2 for i in range(3)},
        'roi_head.mask_head.num_classes': 2,
    },
    'retinanet': {'neck.in_channels': CHANNELS, 'bbox_head.num_classes': 2},
    'upernet': {
        'data_preprocessor.size': (352, 480),
        'data_preprocessor.seg_pad_val': 254,
        'decode_head.in_channels': CHANNELS,
        'decode_head.num_classes': 2,
        'decode_head.ignore_index': 254,
        'auxiliary_head.in_channels': 160,
        'auxiliary_head.num_classes': 2,
        'auxiliary_head.ignore_index': 254,
    },
    'semantic-fpn': {
        'data_preprocessor.size': (352, 480),
        'data_preprocessor.seg_pad_val': 254,
        'neck.in_channels': CHANNELS,
        'decode_head.num_classes': 2,
        'decode_head.ignore_index': 254,
    },
}


@pytest.mark.parametrize('head', CHANGED)
def test_models_differ_from_their_base_by_this_only(head, tmp_path):
    layout = NEW_HEADS[head].layout
    data = data_set(layout, 1000, (500, 375))
    plan = make_plan(data, 8)
    cfg = written(tmp_path, data, head, plan)
    base = Config.fromfile(CONFIGS / '_base_/models' / NEW_HEADS[head].base).model
    found, before = cfg.model.to_dict(), base.to_dict()
    assert found.pop('backbone') == SETTINGS
    del before['backbone']
    found, before = flat(found), flat(before)
    assert not before.keys() - found.keys()
    assert {k: v for k, v in found.items() if before.get(k) != v} == CHANGED[head]
    assert 'custom_hooks' not in cfg
    assert 'starts from random weights (no --checkpoint)' in (tmp_path / 'mine.py').read_text()

    hooks = [dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')]
    kept = Backbone('x', dict(SETTINGS, frozen_stages=1, norm_eval=True), CHANNELS, 'y', hooks)
    cfg = written(tmp_path, data, head, plan, kept, str(tmp_path / 'w.pth'))
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth'))
    expected = dict(SETTINGS, frozen_stages=1, norm_eval=True, init_cfg=weights)
    assert cfg.model.backbone.to_dict() == expected
    assert cfg.custom_hooks == hooks
    text = (tmp_path / 'mine.py').read_text()
    assert 'random weights' not in text
    assert text.splitlines()[2] == '#   the command'


def test_divided_data_are_written_beside_the_config(tmp_path):
    data = data_set('masks', 3)
    data.splits = {
        name: Split('images', 'masks', len(stems), names=stems)
        for name, stems in (('val', ['b']), ('train', ['a', 'c', 'd']))
    }
    cfg = written(tmp_path, data, 'upernet', make_plan(data))
    for name, stems in (('train', 'a\nc\nd\n'), ('val', 'b\n')):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dataset.ann_file == str(tmp_path / f'mine_{name}.txt')
        assert Path(dataset.ann_file).read_text() == stems
        assert dataset.data_prefix == dict(img_path='images', seg_map_path='masks')
    data = data_set('coco', 3)
    for name, split in data.splits.items():
        split.content = dict(images=[name])
    cfg = written(tmp_path, data, 'retinanet', make_plan(data))
    for name in ('train', 'val'):
        file = tmp_path / f'mine_{name}.json'
        assert cfg[f'{name}_dataloader'].dataset.ann_file == str(file)
        assert json.loads(file.read_text()) == dict(images=[name])
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'mine_val.json')


HOSTILE = (
    'line\nbreak\rand\x0bothers\u2028\x85', 'x\nraise SystemExit(1)\n', '# coding: ascii', 'tab\t',
    "it's", 'a "quote" b', "'''", 'back\\slash\\', '\\n', '{x}', '{', '%s %(x)s', '$HOME', ' ',
    '{{ fileDirname }}', '{{$HOME:x}}', '{{_base_.model.type}}', '{{{{fileBasename}}}}',
    'größe 图', '\udcff',
)  # fmt: skip


@pytest.mark.parametrize('layout', ['coco', 'masks'])
def test_names_are_quoted(tmp_path, layout):
    """Folders, files, classes and command lines stay text, whatever they hold."""
    for name in HOSTILE if layout == 'masks' else ['|'.join(HOSTILE)]:
        root = tmp_path / name[:99]
        root.mkdir()
        data = data_set(layout, 9)
        data.root, data.classes = root, [name, f'{name}2']
        for split in data.splits.values():
            split.images, split.labels = f'i{name}/x', f'l{name}'
        if layout == 'masks':
            data.suffixes = (f'{name}.jpg', f'{name}.png')
        out = root / 'mine.py'
        head = 'retinanet' if layout == 'coco' else 'upernet'
        weights = str(root / 'w.pth')
        write_config(str(out), data, head, BACKBONE, make_plan(data), f'x {name}', weights)
        cfg = Config.fromfile(out)
        dataset = cfg.train_dataloader.dataset
        assert cfg.data_root == dataset.data_root == str(root) and Path(cfg.data_root).is_dir()
        assert cfg.metainfo.classes == (name, f'{name}2')
        assert cfg.model.backbone.init_cfg.checkpoint == weights
        assert f'i{name}/x' in dataset.data_prefix.values()
        if layout == 'masks':
            assert (dataset.img_suffix, dataset.seg_map_suffix) == data.suffixes
            assert dataset.data_prefix.seg_map_path == f'l{name}'
        else:
            assert dataset.ann_file == f'l{name}'
            assert cfg.val_evaluator.ann_file == str(root / f'l{name}')
        comment = out.read_text().splitlines()[:3]
        assert all(line.startswith('# ') for line in comment) and len(out.read_bytes()) > 999
        assert len(summary(data, BACKBONE, make_plan(data)).splitlines()) == 2


def divided(layout='coco'):
    data = data_set(layout, 3)
    for name, split in data.splits.items():
        split.content = dict(images=[name])
    return data


def test_nothing_is_overwritten(tmp_path):
    """Neither the config nor the files beside it; all are looked at before one is written."""
    out, data = str(tmp_path / 'mine.py'), divided()
    argv = (out, data, 'retinanet', BACKBONE, make_plan(data), 'the command')
    for name in ('mine.py', 'mine_train.json', 'mine_val.json'):
        (tmp_path / name).write_text('precious')
        with pytest.raises(UserError, match=rf'{name} exists already; .*--force'):
            write_config(*argv)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, 'precious')]
        (tmp_path / name).unlink()
    (tmp_path / 'mine_val.json').symlink_to('nowhere')  # a link to nothing is something
    with pytest.raises(UserError, match=r'mine_val\.json exists already'):
        write_config(*argv)
    (tmp_path / 'mine_train.json').write_text('old')
    assert len(write_config(*argv, force=True)) == 3
    assert json.loads((tmp_path / 'mine_train.json').read_text()) == dict(images=['train'])
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_read_is_never_overwritten(tmp_path):
    data = divided()
    data.root, data.splits['train'].labels = tmp_path, 'mine_train.json'
    (tmp_path / 'mine_train.json').write_text('read')
    (tmp_path / 'link.py').symlink_to('w.pth')
    (tmp_path / 'w.pth').write_text('weights')
    for name, file in (('mine', 'mine_train.json'), ('link', 'link.py')):
        argv = (str(tmp_path / f'{name}.py'), data, 'retinanet', BACKBONE, make_plan(data), 'x')
        with pytest.raises(UserError, match=f'{file} is read, and cannot be overwritten'):
            write_config(*argv, str(tmp_path / 'w.pth'), force=True)
    base = CONFIGS / '_base_/models/retinanet_r50_fpn.py'
    text = base.read_text()
    with pytest.raises(UserError, match='is a config of hybrid_mm'):
        write_config(str(base), data, 'retinanet', BACKBONE, make_plan(data), 'x', force=True)
    assert base.read_text() == text
    (tmp_path / 'folder.py').mkdir()
    with pytest.raises(UserError, match='is a folder'):
        write_config(
            str(tmp_path / 'folder.py'), data, 'retinanet', BACKBONE, make_plan(data), 'x',
            force=True,
        )  # fmt: skip


@pytest.mark.parametrize('step', ['write', 'read', 'replace'])
def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch, step):
    data, count = divided(), []
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'other.txt').write_text('stays')

    def full(*args):
        count.append(args)
        if len(count) == 2:
            raise OSError(28, 'No space left on device')
        return original(*args)

    original = os.replace
    if step == 'write':
        data.splits['val'].content = dict(images=['\udcff'])
        monkeypatch.setattr(new_config.json, 'dumps', lambda content: content['images'][0])
    elif step == 'read':
        backbone = Backbone('x', {'not a name': 1}, [32, 64, 160, 256], 'y', [])
    else:
        monkeypatch.setattr(new_config.os, 'replace', full)
    backbone = backbone if step == 'read' else BACKBONE
    for out in ('a/mine.py', 'b/c/mine.py'):
        count.clear()
        with pytest.raises((UserError, UnicodeEncodeError)) as caught:
            write_config(
                str(tmp_path / out), data, 'retinanet', backbone, make_plan(data), 'the command'
            )
        if step == 'replace':
            assert f'{out} cannot be written' in str(caught.value)
            assert 'No space left' in str(caught.value)
        assert [p.name for p in tmp_path.rglob('*')] == ['a', 'other.txt']
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'--out .*file/mine\.py cannot be written'):
        write_config(
            str(tmp_path / 'file/mine.py'), data, 'retinanet', BACKBONE, make_plan(data), 'x'
        )


def test_heads_want_their_data(capsys):
    for polygons, said in ((1.0, ''), (0.98, '2% of the objects'), (0.5, '50% of the objects')):
        check_head('mask-rcnn', data_set('coco', 9, polygons=polygons))
        assert said in capsys.readouterr().err
    for polygons, share in ((0.49, '51%'), (0.06, '94%')):
        with pytest.raises(UserError, match=f'needs instance masks, but {share} of the objects'):
            check_head('cascade-mask-rcnn', data_set('coco', 9, polygons=polygons))
        check_head('retinanet', data_set('coco', 9, polygons=polygons))
    with pytest.raises(UserError, match='use --head mask-rcnn, cascade-mask-rcnn, retinanet'):
        check_head('upernet', data_set('coco', 9))
    with pytest.raises(UserError, match='needs boxes in a COCO file'):
        check_head('retinanet', data_set('masks', 9))


# ---- backbones of the zoo

ZOO = {
    # name of the config: data set, scope, further settings of its backbone and of itself
    'small_8xb128_in1k': ('ImageNet-1k', 'mmpretrain', dict(out_indices=(3,), drop_path_rate=0.1)),
    'retinanet_small_fpn_1x_coco': (
        'COCO', 'mmdet', dict(drop_path_rate=0.2, frozen_stages=1, norm_eval=True)),
    'mask-rcnn_small_fpn_1x_coco': ('COCO', 'mmdet', dict(drop_path_rate=0.3)),
    'small_upernet_8xb2_ade20k': ('ADE20K', 'mmseg', dict(drop_path_rate=0.4)),
    'other_8xb128_in1k': (
        'ImageNet-1k', 'mmpretrain', dict(out_indices=(3,), drop_path_rate=0.5, norm_eval=True)),
}  # fmt: skip


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of tiny networks; weights of them."""
    models = []
    (tmp_path / 'configs').mkdir()
    for name, (dataset, scope, settings) in ZOO.items():
        entry = dict(
            Name=name,
            Config=f'configs/{name}.py',
            Metadata=dict({'Training Data': dataset, 'Input Size': '32x32'}, Parameters=1, FLOPs=1),
        )
        models.append(Model(entry))
        init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')
        backbone = dict(type='hybrid_mm.VAN', arch=TINY, init_cfg=init_cfg, **settings)
        (tmp_path / f'configs/{name}.py').write_text(
            f'default_scope = {scope!r}\nmodel = dict(type="X", backbone={backbone})\n'
            f'custom_hooks = [dict(type="EMAHook", momentum={settings["drop_path_rate"]})]\n'
        )
    monkeypatch.setattr(new_backbone, 'installed_trees', lambda: [SimpleNamespace(models=models)])
    monkeypatch.setattr(new_backbone, 'installed_configs', lambda: tmp_path / 'configs')
    torch.save(VAN(TINY).state_dict(), tmp_path / 'w.pth')
    return str(tmp_path / 'w.pth')


def test_backbones_of_the_same_head_are_preferred(zoo):
    """Then other heads, classifiers last."""
    for head, rate in (('retinanet', 0.2), ('mask-rcnn', 0.3), ('upernet', 0.4)):
        found = find_backbone('small', head)
        assert found.settings['drop_path_rate'] == rate, head
        assert found.channels == [8, 16, 24, 32]
        assert ZOO[found.source][2]['drop_path_rate'] == rate
    assert find_backbone('small', 'semantic-fpn').settings['drop_path_rate'] in (0.2, 0.3, 0.4)
    found = find_backbone('other', 'upernet')  # four maps, though its only config has one
    assert found.settings == dict(type='hybrid_mm.VAN', arch=TINY, drop_path_rate=0.5)
    assert (found.name, found.source, found.hooks) == ('other', 'other_8xb128_in1k', [])


def test_backbones_of_mmpretrain():
    """Whose ``eval()`` returns nothing."""
    found = find_backbone('convnext-t', 'upernet')
    assert found.settings['type'] == 'mmpretrain.ConvNeXt'
    assert found.channels == [96, 192, 384, 768]


def test_weights_decide_on_what_is_frozen_and_on_hooks(zoo):
    bare = dict(type='hybrid_mm.VAN', arch=TINY, drop_path_rate=0.2)
    found = find_backbone('small', 'retinanet')
    assert (found.settings, found.hooks) == (bare, [])
    found = find_backbone('small', 'retinanet', zoo)
    assert found.settings == dict(bare, frozen_stages=1, norm_eval=True)
    assert found.hooks == [dict(type='EMAHook', momentum=0.2)]
    found = find_backbone('other', 'upernet', zoo)
    assert found.settings['norm_eval'] is True


PUBLISHED = """
- Name: small_in1k
  Files:
    - {URL: https://x.org/small.pth, Layout: ours, Source: readme, Licence: MIT}
  Metrics: {Top 1 Accuracy: 75.41}
- Name: worse_in1k
  Files:
    - {URL: https://x.org/worse.pth, Layout: ours, Source: readme}
  Metrics: {Top 1 Accuracy: 75.3}
- Name: manual_in1k
  Files:
    - {Page: https://x.org/drive, Layout: ours, Source: readme}
- Name: other_in1k
  Unpublished: readme
  Trained by: other_8xb128_in1k
"""


def start_from(name: str, checkpoint: str) -> None:
    """Change what a config of the zoo starts from."""
    path = new_backbone.installed_configs() / f'{name}.py'
    path.write_text(path.read_text().replace('nowhere.pth', checkpoint))


def test_start_of_a_backbone(zoo, registry):
    """What is published or here is taken; else the reason is said, and nothing is frozen."""
    registry(x=PUBLISHED)
    start_from('retinanet_small_fpn_1x_coco', 'hybrid_mm://small_in1k')
    start_from('mask-rcnn_small_fpn_1x_coco', 'hybrid_mm://manual_in1k')
    start_from('small_upernet_8xb2_ade20k', 'torchvision://resnet50')
    found = find_backbone('small', 'retinanet', 'auto')
    assert (found.start.checkpoint, found.start.loads) == ('hybrid_mm://small_in1k', False)
    assert found.start.text == (
        'hybrid_mm://small_in1k (Top 1 Accuracy 75.4, licence: MIT); downloaded when first needed'
    )
    assert found.settings['frozen_stages'] == 1 and found.hooks
    found = find_backbone('small', 'mask-rcnn', 'auto')
    assert found.start.checkpoint is None and not found.hooks
    assert 'has to be downloaded by hand: https://x.org/drive (save it' in found.start.text
    found = find_backbone('small', 'upernet', 'auto')
    assert found.start.checkpoint == 'torchvision://resnet50' and not found.start.loads
    found = find_backbone('other', 'upernet', 'auto')
    assert found.start.text.startswith(
        'random weights (no --checkpoint): nobody published other_in1k, tools/train.py with the '
        'config other_8xb128_in1k makes them; training is longer'
    )
    # of two configs of a head the one whose weights are better
    path = new_backbone.installed_configs() / 'retinanet_small_fpn_1x_coco.py'
    path.write_text(path.read_text().replace('small_in1k', 'worse_in1k'))
    assert find_backbone('small', 'retinanet', 'auto').start.checkpoint.endswith('worse_in1k')
    twin = SimpleNamespace(
        name='twin', backbone='small', head='RetinaNet', config='configs/twin.py'
    )
    path.with_name('twin.py').write_text(path.read_text().replace('worse_in1k', 'small_in1k'))
    new_backbone.installed_trees()[0].models.append(twin)
    found = find_backbone('small', 'retinanet', 'auto')
    assert (found.source, found.start.checkpoint) == ('twin', 'hybrid_mm://small_in1k')
    for checkpoint in (None, 'none'):
        assert find_backbone('small', 'retinanet', checkpoint).start.checkpoint is None
    for checkpoint, text in (
        (
            'hybrid_mm://small_in1k',
            'hybrid_mm://small_in1k (Top 1 Accuracy 75.4, licence: MIT); downloaded',
        ),
        ('hybrid_mm://other_in1k', 'hybrid_mm://other_in1k; ours to train, and not here yet'),
        ('https://x.org/a.pth', 'https://x.org/a.pth, downloaded when first needed'),
    ):
        start = find_backbone('small', 'retinanet', checkpoint).start
        assert start.checkpoint == checkpoint and start.text.startswith(text)
    with pytest.raises(UserError, match='did you mean small_in1k'):
        find_backbone('small', 'retinanet', 'hybrid_mm://smal_in1k')

    # files of the user's, under the names of the weights: they are read
    Path('checkpoints').mkdir()
    for name in ('manual_in1k', 'other_in1k'):
        torch.save(VAN(TINY).state_dict(), f'checkpoints/{name}.pth')
    for backbone, head, name in (
        ('small', 'mask-rcnn', 'manual_in1k'),
        ('other', 'upernet', 'other_in1k'),
    ):
        start = find_backbone(backbone, head, 'auto').start
        assert (start.checkpoint, start.loads) == (f'hybrid_mm://{name}', True)
        assert start.text.endswith(f'{name}; here: checkpoints/{name}.pth')
    torch.save(VAN(dict(TINY, depths=[2] * 4)).state_dict(), 'checkpoints/manual_in1k.pth')
    with pytest.raises(UserError, match='manual_in1k does not fit small'):
        find_backbone('small', 'mask-rcnn', 'auto')


HALF = dict(mean=[127.5] * 3, std=[127.5] * 3)
DECAY = """
optim_wrapper = dict(
    constructor={!r},
    paramwise_cfg=dict(layer_decay_rate=0.7, custom_keys={{'stem.position': dict(decay_mult=0.0)}}),
)
model.update(data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3))
"""


def test_settings_that_belong_to_weights(zoo, registry, tmp_path):
    """Normalisation of the registry, else of the zoo's config; decay by layers."""
    registry(x=PUBLISHED)
    name = 'small_upernet_8xb2_ade20k'
    start_from(name, 'hybrid_mm://small_in1k')
    path = tmp_path / f'configs/{name}.py'
    before = path.read_text()
    path.write_text(before + DECAY.format('hybrid_mm.LayerDecayOptimWrapperConstructor'))
    data = data_set('masks', 1000)
    backbone = find_backbone('small', 'upernet', 'auto')
    argv = (tmp_path, data, 'upernet', make_plan(data), backbone, backbone.start.checkpoint)
    cfg = written(*argv)
    assert cfg.model.backbone.init_cfg.checkpoint == 'hybrid_mm://small_in1k'
    assert {key: cfg.model.data_preprocessor[key] for key in HALF} == HALF
    assert cfg.model.data_preprocessor.size == cfg.crop_size
    assert cfg.optim_wrapper.constructor == 'hybrid_mm.LayerDecayOptimWrapperConstructor'
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        layer_decay_rate=0.7, custom_keys={'stem.position': dict(decay_mult=0.0)}
    )
    # from random weights: neither
    backbone = find_backbone('small', 'upernet')
    cfg = written(tmp_path, data, 'upernet', make_plan(data), backbone)
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    # a constructor of a library that the new config does not belong to
    path.write_text(before + DECAY.format('mmdet.LearningRateDecayOptimizerConstructor'))
    assert find_backbone('small', 'upernet', 'auto').start.optimizer == {}
    (tmp_path / 'registry/preprocessing.yml').write_text(
        '[{Weights: [small_*], Normalisation: half, Dense: [[1, 2, 3], [4, 5, 6]]}]'
    )
    registry_module._preprocessing.cache_clear()
    start = find_backbone('small', 'upernet', 'auto').start
    assert start.normalisation == dict(mean=[1, 2, 3], std=[4, 5, 6])


def test_plan_from_random_weights():
    """Three times as long: 36 epochs of COCO, 300 of few images; at most 160,000 steps."""
    for layout, count, batch, steps in (
        ('coco', 118_000, 16, 36),
        ('coco', 8, 2, 300),
        ('masks', 1000, 8, 39_000),
        ('masks', 20_210, 4, 160_000),
    ):
        plan = make_plan(data_set(layout, count), batch, pretrained=False)
        assert plan.steps == steps, (layout, count)
        assert '3 times that from random weights' in plan.rule
