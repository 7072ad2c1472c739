"""``python -m hybrid_mm``: what the zoo has, and configs for small data sets of every layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hybrid_mm.__main__ import _HEADS, main
from hybrid_mm.zoo.heads import NEW_HEADS
from hybrid_mm.zoo.user_data import read_data


@pytest.fixture
def call(capsys):
    """Run a command: its status, output and errors."""

    def run(*argv):
        capsys.readouterr()
        status = main([str(arg) for arg in argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_list(call):
    status, out, _ = call('list', 'van-b2', 'upernet')
    assert status == 0
    lines = [line.split('\t') for line in out.splitlines()]
    assert lines[0][:2] == ['backbone', 'family']
    assert lines[1][:2] == ['van-b2', 'VAN']
    (config,) = [line for line in lines if line[0].endswith('.py')]
    assert config[0].endswith('van-b2_upernet_8xb2-160k_ade20k-512x512.py')
    assert config[1] == 'UperNet'
    assert '49.4' in config[-1]


def test_list_as_json(call):
    status, out, _ = call('list', 'van-b*_fpn_1x', '--json', '--only', 'configs')
    found = json.loads(out)
    assert status == 0
    assert list(found) == ['configs']
    assert {row['head'] for row in found['configs']} == {'Mask R-CNN', 'RetinaNet'}
    assert all(row['accuracies'][0]['source'] == 'paper' for row in found['configs'])


def test_list_names_the_nearest(call):
    status, _, err = call('list', 'van-b9')
    assert status == 2
    assert "nothing in the zoo matches 'van-b9'; did you mean" in err


NEW = ('new', '--backbone', 'van-b0')
TINY = ('--scale', '64', '64', '--batch-size', '2')


def pipeline_runs(tool, out, tmp_path, *options):
    """Train, validate and test with what `new` wrote."""
    cfg = Config.fromfile(out)
    assert cfg.model.backbone.type == 'hybrid_mm.VAN'
    assert cfg.model.backbone.pop('init_cfg').checkpoint == 'hybrid_mm://van-b0_in1k'
    cfg.model.backbone.arch = dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    for part in (cfg.model.get('neck'), cfg.model.get('decode_head')):
        if part and len(part.get('in_channels', ())) == 4 and part.in_channels[0] == 32:
            part.in_channels = [8, 8, 16, 16]
    if cfg.model.get('auxiliary_head'):
        cfg.model.auxiliary_head.update(in_channels=16, channels=16)
        cfg.model.decode_head.channels = 16
    elif cfg.model.get('decode_head'):
        cfg.model.neck.out_channels = 16
        cfg.model.decode_head.update(in_channels=[16] * 4, channels=16)
    if cfg.model.get('bbox_head'):
        cfg.model.neck.out_channels = 16
        cfg.model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    small = tmp_path / 'small.py'
    cfg.dump(small)
    work = tmp_path / 'work'
    options = ('--cfg-options', *options) if options else ()
    status, err = tool('train', small, '--work-dir', work, *options)
    assert status == 0, err
    (weights,) = [p for p in work.glob('*.pth') if not p.name.startswith('best')]
    status, err = tool('test', small, weights, '--work-dir', work)
    assert status == 0, err


def test_heads_agree():
    assert tuple(NEW_HEADS) == _HEADS


def test_cascade(call, tiny_coco, tmp_path):
    out = tmp_path / 'mine.py'
    argv = ('--head', 'cascade-mask-rcnn', '--data', tiny_coco, '--out', out)
    assert call(*NEW, *argv)[0] == 0
    heads = Config.fromfile(out).model.roi_head
    assert [head.num_classes for head in heads.bbox_head] == [3, 3, 3]
    assert heads.bbox_head[2].bbox_coder.target_stds == [0.033, 0.033, 0.067, 0.067]
    assert heads.mask_head.num_classes == 3


def test_coco(call, tool, tiny_coco, tmp_path):
    out = tmp_path / 'mine.py'
    argv = ('--head', 'retinanet', '--data', tiny_coco, '--out', out)
    status, text, err = call(*NEW, *argv, *TINY, '--iterations', '2')
    assert status == 0, err
    assert '3 classes (square, disc, bar), 8 images in train, 4 images in val' in text
    assert 'the backbone starts from hybrid_mm://van-b0_in1k (Top 1 Accuracy 75.4, ' in text
    cfg = Config.fromfile(out)
    assert cfg.metainfo.classes == ('square', 'disc', 'bar')
    assert cfg.model.neck.in_channels == [32, 64, 160, 256]
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/train.json'
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    pipeline_runs(tool, out, tmp_path)
    with pytest.raises(SystemExit):  # argparse: one or the other
        call(*NEW, *argv, '--iterations', '2', '--epochs', '2')


def test_roboflow_with_an_empty_category(call, tiny_coco, tmp_path):
    """Files beside the images; category 0 is the group of the others."""
    root = tmp_path / 'export'
    for ours, theirs in (('train', 'train'), ('val', 'valid')):
        shutil.copytree(tiny_coco / ours, root / theirs)
        content = json.loads((tiny_coco / f'annotations/{ours}.json').read_text())
        content['categories'].insert(0, dict(id=0, name='shapes', supercategory='none'))
        (root / theirs / '_annotations.coco.json').write_text(json.dumps(content))
    argv = ('--head', 'mask-rcnn', '--data', root, '--out', tmp_path / 'mine.py')
    status, _, err = call(*NEW, *argv)
    assert status == 2
    assert '1 of 4 categories have no boxes: shapes' in err
    status, _, err = call(*NEW, *argv, '--empty-classes', 'drop')
    assert status == 0, err
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.val_dataloader.dataset.ann_file == 'valid/_annotations.coco.json'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'valid'
    assert cfg.model.roi_head.mask_head.num_classes == 3


def test_holdout_of_coco(call, tiny_coco, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_coco / 'train', root / 'train')
    shutil.copy(tiny_coco / 'annotations/train.json', root)
    out = tmp_path / 'configs/mine.py'
    argv = (*NEW, '--head', 'retinanet', '--data', root, '--out', out)
    assert 'no validation split' in call(*argv)[2]
    assert not out.exists()
    assert call(*argv, '--holdout', '0.25')[0] == 0
    parts = [json.loads((out.parent / f'mine_{s}.json').read_text()) for s in ('train', 'val')]
    ids = [{image['id'] for image in part['images']} for part in parts]
    assert [len(part) for part in ids] == [6, 2]
    assert not ids[0] & ids[1]
    assert all(a['image_id'] in ids[1] for a in parts[1]['annotations'])


@pytest.fixture
def masks(tmp_path):
    """Images and label maps of 96 x 64: three classes and what is ignored."""

    def make(
        images='images/{}', labels='masks/{}', splits=('train', 'val'), suffix='.png', ignore=255
    ):
        root = tmp_path / 'masks_data'
        for split in splits:
            for folder in (images, labels):
                (root / folder.format(split)).mkdir(parents=True)
            for i in range(4):
                label = np.zeros((64, 96), np.uint8)
                label[:, 30:60], label[:, 60:90], label[:, 90:] = 1, 2, ignore
                Image.fromarray(np.stack([label * 60] * 3, 2)).save(
                    root / images.format(split) / f'{i}.jpg'
                )
                Image.fromarray(label).save(root / labels.format(split) / f'{i}{suffix}')
        return root

    return make


@pytest.mark.parametrize('head', ['upernet', 'semantic-fpn'])
def test_masks(call, tool, masks, tmp_path, head):
    root = masks(ignore=254)
    (root / 'classes.txt').write_text('ground\nbar\nwall\n')
    out = tmp_path / 'mine.py'
    # the shorter side first, which does not matter
    flags = ('--scale', '64', '96', '--batch-size', '4', '--ignore-index', '254', '--epochs', '1')
    status, text, err = call(*NEW, '--head', head, '--data', root, '--out', out, *flags)
    assert status == 0, err
    assert '3 classes (ground, bar, wall)' in text
    cfg = Config.fromfile(out)
    assert cfg.model.decode_head.num_classes == 3
    assert (cfg.scale, cfg.crop_size, cfg.ignore_index) == ((96, 64), (64, 96), 254)
    assert cfg.max_iters == 1
    pipeline_runs(tool, out, tmp_path)


def test_layouts_of_masks(masks):
    for images, labels, suffix in (
        ('{}/images', '{}/masks', '_mask.png'),
        ('images/{}', 'annotations/{}', '.png'),
    ):
        root = masks(images, labels, suffix=suffix)
        data = read_data(root)
        assert data.suffixes == ('.jpg', suffix)
        assert data.size == (96, 64)
        assert data.classes == ['class_0', 'class_1', 'class_2']
        shutil.rmtree(root)


def test_holdout_of_masks(call, masks, tmp_path):
    root = masks('images', 'masks', splits=('',))
    out = tmp_path / 'mine.py'
    argv = (*NEW, '--head', 'upernet', '--data', root, '--out', out, '--holdout', '0.25')
    assert call(*argv)[0] == 0
    lists = [(tmp_path / f'mine_{s}.txt').read_text().split() for s in ('train', 'val')]
    assert [len(part) for part in lists] == [3, 1]
    assert sorted(lists[0] + lists[1]) == list('0123')
    assert Config.fromfile(out).val_dataloader.dataset.ann_file == str(tmp_path / 'mine_val.txt')


def test_folder_of_any_name(call, masks, tmp_path):
    """The config points at the folder, and what is printed is two lines and one more."""
    root = masks('images', 'masks', splits=('',)).rename(tmp_path / 'a\nb "{{ fileDirname }}" \'c')
    out = root / 'mine.py'
    argv = (*NEW, '--head', 'upernet', '--data', root, '--out', out, '--holdout', '0.25')
    status, text, err = call(*argv)
    assert status == 0, err
    assert len(text.splitlines()) == 4 and 'a\\nb "{{ fileDirname }}"' in text
    cfg = Config.fromfile(out)
    cfg.train_dataloader.dataset.pipeline = []
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(data) == 3 and all(
        Path(data.get_data_info(i)[key]).is_file()
        for i in range(3)
        for key in ('img_path', 'seg_map_path')
    )
    status, _, err = call(*argv)
    assert status == 2 and 'mine.py exists already' in err
    out.unlink()
    lists = {path: path.read_text() for path in root.glob('*.txt')}
    status, _, err = call(*argv)
    assert status == 2 and 'mine_train.txt exists already' in err.replace('mine_val', 'mine_train')
    assert not out.exists()
    assert call(*argv, '--force')[0] == 0 and out.exists()
    assert lists == {path: path.read_text() for path in root.glob('*.txt')}


def change_label(root, value):
    path = root / 'masks/train/2.png'
    Image.fromarray(np.full((64, 96), value, np.uint8)).save(path)


def binary(root):
    for path in root.glob('masks/*/*.png'):
        Image.fromarray(
            np.where(np.arange(96) < 50, 0, 255)[None].repeat(64, 0).astype(np.uint8)
        ).save(path)


def coloured(root):
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(root / 'masks/train/2.png')


def other_size(root):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / 'masks/train/2.png')


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


BAD_MASKS = {
    'label': (lambda root: change_label(root, 9), 'has the label 9; 3 classes allow 0 to 2'),
    'binary': (binary, 'hold 0 and 255 only'),
    'coloured': (coloured, 'has the shape (64, 96, 3); expected one channel'),
    'size': (other_size, 'has 64 x 64 pixels (height x width), the image 64 x 96'),
    'missing': (lambda root: (root / 'masks/val/1.png').unlink(), 'have no label map'),
    'endings': (
        lambda root: (root / 'images/val/1.jpg').rename(root / 'images/val/1.JPEG'),
        'images of several endings',
    ),
    'no split': (lambda root: shutil.rmtree(root / 'images/val'), 'has no validation split'),
    'truncated': (
        lambda root: truncate(root / 'masks/train/2.png'),
        'masks/train/2.png is truncated',
    ),
    'image truncated': (
        lambda root: truncate(root / 'images/val/1.jpg'),
        'images/val/1.jpg is truncated',
    ),
    'text': (
        lambda root: (root / 'masks/train/2.png').write_text('x'),
        'masks/train/2.png cannot be read as an image',
    ),
    '16 bits': (
        lambda root: Image.fromarray(np.full((64, 96), 300, np.uint16)).save(
            root / 'masks/train/2.png'
        ),
        'has 16 bits per pixel',
    ),
    'classes': (
        lambda root: (root / 'classes.txt').write_bytes(b'caf\xe9\n'),
        'classes.txt is not UTF-8 text',
    ),
    'nothing': (lambda root: shutil.rmtree(root / 'masks'), 'has no training annotations'),
}


@pytest.mark.parametrize('name', BAD_MASKS)
def test_bad_masks(call, masks, tmp_path, name):
    spoil, message = BAD_MASKS[name]
    root = masks()
    (root / 'classes.txt').write_text('ground\nbar\nwall\n')
    spoil(root)
    out = tmp_path / 'mine.py'
    status, _, err = call(*NEW, '--head', 'upernet', '--data', root, '--out', out)
    assert status == 2
    assert message in err
    assert not out.exists()


def test_values_with_gaps(call, masks, tmp_path):
    root = masks()
    change_label(root, 100)
    argv = (*NEW, '--head', 'upernet', '--data', root, '--out', tmp_path / 'mine.py')
    assert 'have the values 0, 1, 2, 100' in call(*argv)[2]


def edit(tmp_path, tiny_coco, change, split='train'):
    root = tmp_path / 'coco'
    shutil.copytree(tiny_coco, root)
    file = root / f'annotations/{split}.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return root


BAD_COCO = {
    'empty': (lambda c: c['annotations'].clear(), "list 'annotations' is empty"),
    'unknown category': (
        lambda c: c['annotations'][0].update(category_id=77),
        '0.png: annotation 1 has the category 77; the file has 1, 2, 3',
    ),
    'same name': (
        lambda c: c['categories'][0].update(name='bar'),
        "the categories 1, 3 are all named 'bar', and have objects",
    ),
    'images': (
        lambda c: [image.update(file_name=f'x{image["id"]}.png') for image in c['images']],
        "not found (e.g. 'x0.png')",
    ),
    'no masks': (
        lambda c: [a.update(segmentation=[]) for a in c['annotations']],
        '100% of the objects',
    ),
}


@pytest.mark.parametrize('name', BAD_COCO)
def test_bad_coco(call, tiny_coco, tmp_path, name):
    change, message = BAD_COCO[name]
    root = edit(tmp_path, tiny_coco, change)
    argv = ('--head', 'mask-rcnn', '--data', root, '--out', tmp_path / 'mine.py')
    status, _, err = call(*NEW, *argv)
    assert status == 2
    assert message in err


def test_other_mistakes(call, tiny_coco, tmp_path):
    out = tmp_path / 'mine.py'
    good = ['--head', 'mask-rcnn', '--data', tiny_coco, '--out', out]
    assert 'did you mean van-b' in call('new', '--backbone', 'van-bo', *good)[2]
    assert 'returns maps at strides' in call('new', '--backbone', 'learned', *good)[2]
    assert 'is not a folder' in call(*NEW, *good[:3], tmp_path / 'none', *good[4:])[2]
    assert 'use --head mask-rcnn' in call(*NEW, '--head', 'upernet', *good[2:])[2]
    assert 'does not exist' in call(*NEW, *good, '--checkpoint', tmp_path / 'none.pth')[2]
    for names, message in (
        ('disk', "no category 'disk'; did you mean disc?"),
        ('bar,Disc', "no category 'Disc'; 'Disc' is spelled 'disc' there"),
        ('bar,disc,bar', '--classes: listed twice: bar'),
    ):
        assert message in call(*NEW, *good, '--classes', names)[2]
    assert 'no --holdout' in call(*NEW, *good, '--holdout', '0.2')[2]

    def without_bars(content):
        content['categories'].pop()
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] < 3]

    root = edit(tmp_path, tiny_coco, without_bars, 'val')
    assert 'has no categories bar' in call(*NEW, *good[:3], root, *good[4:])[2]
    out.write_text('')
    assert 'exists already' in call(*NEW, *good)[2]
    assert out.read_text() == ''


def test_checkpoint(call, tiny_coco, tmp_path):
    import torch

    from hybrid_mm.backbones import VAN

    weights, out = tmp_path / 'b0.pth', tmp_path / 'mine.py'
    torch.save(VAN('b0').state_dict(), weights)
    argv = ('--head', 'retinanet', '--data', tiny_coco, '--out', out, '--checkpoint', weights)
    status, _, err = call(*NEW, *argv)
    assert status == 0, err
    assert Config.fromfile(out).model.backbone.init_cfg.checkpoint == str(weights)
    out.unlink()
    status, _, err = call('new', '--backbone', 'van-b1', *argv)
    assert status == 2
    assert 'does not fit van-b1' in err


def test_what_nobody_published(call, tiny_coco, tmp_path):
    """The command and the config say from what the backbone starts, and training is longer."""
    out = tmp_path / 'mine.py'
    argv = ('--head', 'retinanet', '--data', tiny_coco, '--out', out)
    status, printed, err = call('new', '--backbone', 'van-lska-tiny-k7', *argv)
    assert status == 0, err
    cfg = Config.fromfile(out)
    assert 'init_cfg' not in cfg.model.backbone and cfg.max_epochs == 300
    reason = (
        'random weights (no --checkpoint): nobody published van-lska-tiny-k7_in1k, tools/train.py'
    )
    assert reason in printed and reason in out.read_text().replace('\n# ', ' ')
