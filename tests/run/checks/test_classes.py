"""Class names before a run: their form, their order, and all that depends on their number."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from hybrid_mm.data.class_order import classes_of_checkpoint, meta_of_checkpoint, moved, spelling
from hybrid_mm.errors import UserError
from hybrid_mm.run.checks import data

ROOT = Path(__file__).resolve().parents[3]
CATS = ('person', 'car', 'dog')


def coco_file(path, names=CATS):
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    return str(path)


def loader(kind, **dataset):
    return dict(dataset=dict(type=kind, **dataset))


def detection(path, number=3, **changes):
    dataset = dict(type='CocoDataset', ann_file=path, metainfo=dict(classes=CATS)) | changes
    model = dict(bbox_head=dict(num_classes=number), rpn_head=dict(num_classes=1))
    return Config(dict(default_scope='mmdet', model=model, val_dataloader=dict(dataset=dataset)))


def refused(cfg, match, key='val_dataloader'):
    with pytest.raises(UserError, match=match):
        data.check_data(cfg, key)


# --- the names themselves


@pytest.mark.parametrize(('metainfo', 'message'), [
    (dict(classes='person'), r"'person', and no file has this name; .* classes=\('person',\)"),
    (('person', 'car'), r"CocoDataset: metainfo must be a dict, .* got \('person', 'car'\)"),
    (dict(classes=()), r"classes must be names, e.g. \('cat', 'dog'\), got \(\)"),
    (dict(classes=3), 'must be names, .*got 3'),
    (dict(classes=('person', 3, 'dog')), 'classes must be texts, got 3'),
    (dict(classes=('person', 'dog', 'dog')), 'metainfo.classes: listed twice: dog$'),
    (dict(CLASSES=CATS), "metainfo.CLASSES is not read; its key is 'classes'"),
    (dict(classes=CATS, palette=[(1, 2, 3)] * 2), '2 colours for 3 classes'),
    (dict(classes=('Person', 'car', 'dog')), "Person; 'Person' is spelled 'person' there; the f"),
    (dict(classes=('person', 'car ', 'dog')), "'car ' is spelled 'car' there"),
    (dict(classes=('person', 'cat', 'dog')), 'did you mean car'),
])  # fmt: skip
def test_names(tmp_path, metainfo, message):
    refused(detection(coco_file(tmp_path / 'a.json'), metainfo=metainfo), message)


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        (dict(ann_file=['a', 'b']), r'ann_file must be text, got .*joined by ConcatDataset'),
        (dict(data_root=3), 'data_root must be text, got 3'),
        (dict(data_prefix='train/'), r"must be a dict; use dict\(img='train/'\)"),
        (dict(data_prefix=['train']), 'must be a dict of folders'),
        (dict(ann_file=''), 'has no ann_file; CocoDataset reads'),
        (dict(data_root='~/x', data_prefix=dict(img='a')), '~ is not expanded here, write'),
    ],
)
def test_kinds_of_paths(tmp_path, dataset, message):
    refused(detection(coco_file(tmp_path / 'x.json'), **dataset), message)


def test_a_metric_without_objects(tmp_path):
    pack = dict(type='PackDetInputs', meta_keys=('img_id',))
    cfg = detection(coco_file(tmp_path / 'x.json'), pipeline=[dict(type='LoadImageFromFile'), pack])
    cfg.val_evaluator = dict(type='CocoMetric')
    refused(cfg, 'val_evaluator has no ann_file, and the pipeline of val_dataloader does not')
    cfg.val_dataloader.dataset.pipeline[1].meta_keys = ('img_id', 'instances')
    data.check_data(cfg, 'val_dataloader')


def test_a_file_of_names(tmp_path, monkeypatch):
    (tmp_path / 'names.txt').write_text('dog\nperson\ncar\n')
    monkeypatch.setenv('HOME', str(tmp_path))
    path, names = coco_file(tmp_path / 'a.json'), str(tmp_path / 'names.txt')
    data.check_data(detection(path, metainfo=None, classes='~/names.txt'), 'val_dataloader')
    cfg = detection(path, metainfo=dict(classes=names))
    data.check_data(cfg, 'val_dataloader')
    cfg.model.bbox_head.num_classes = 4
    refused(cfg, 'num_classes is 4, but the data set of val_dataloader has 3 classes .dog, ')


def test_categories_in_another_order_are_told(tmp_path, capsys):
    path = coco_file(tmp_path / 'a.json', CATS[::-1])
    data.check_data(detection(path), 'val_dataloader')
    assert capsys.readouterr().err == (
        f'warning: val_dataloader: {path} lists its categories in another order (dog, car, person) '
        'than the config its classes (person, car, dog). Labels follow the config here; in tools '
        'of MMDetection without hybrid_mm they follow the file\n'
    )
    data.check_data(detection(coco_file(tmp_path / 'b.json', ('x', *CATS))), 'val_dataloader')
    assert capsys.readouterr().err == ''


def test_files_of_metrics(tmp_path, capsys):
    path = coco_file(tmp_path / 'a.json', CATS[::-1])
    cfg = detection(path)
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=path)
    data.check_data(cfg, 'val_dataloader')
    assert capsys.readouterr().err.count('another order') == 1
    other = coco_file(tmp_path / 'b.json', ('person', 'dog'))
    cfg.val_evaluator = [dict(type='CocoMetric'), dict(type='CocoMetric', ann_file=other)]
    refused(cfg, r'val_evaluator.1: 1 of the 3 classes .* of .*b.json: car')
    cfg.val_evaluator[1].ann_file = str(tmp_path / 'none.json')
    refused(cfg, r'val_evaluator.1.ann_file: .*No such file')
    cfg.val_evaluator = dict(type='CocoFastMetric', ann_file=path)
    refused(cfg, 'CocoFastMetric evaluates classes in the order of .*dog, car, person.*CocoMetric')


def test_data_sets_that_take_the_order_of_their_file(tmp_path):
    path = coco_file(tmp_path / 'a.json', CATS[::-1])
    refused(detection(path, type='LVISV1Dataset'), "'person' is 0 in the first and 2 in the second")
    path = coco_file(tmp_path / 'a.json', (*CATS, 'hen'))
    refused(detection(path, type='LVISV1Dataset'), 'has 3 classes, .* has 4; only in one.*: hen')
    data.check_data(
        detection(coco_file(tmp_path / 'a.json'), type='LVISV1Dataset'), 'val_dataloader'
    )


def test_data_sets_that_are_joined(tmp_path):
    path = coco_file(tmp_path / 'a.json')
    cfg = detection(path)
    parts = [dict(cfg.val_dataloader.dataset, metainfo=dict(classes=c)) for c in (CATS, CATS[::-1])]
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    refused(
        cfg, r'the first \(CocoDataset\) has person, car, dog, number 2 .* has dog, car, person'
    )
    parts[1]['metainfo'] = parts[0]['metainfo']
    cfg.val_dataloader.dataset = dict(type='RepeatDataset', dataset=dict(datasets=parts))
    data.check_data(cfg, 'val_dataloader')


def test_splits_of_other_orders(tmp_path, capsys):
    path = coco_file(tmp_path / 'a.json')
    for names, message in (
        (('dog', 'car', 'person'), "'person' is 0 in the first and 2 in the second"),
        (('car', 'dog', 'bike'), "'car' is 1 in the first and 0"),
    ):
        cfg = detection(coco_file(tmp_path / 'b.json', (*CATS, 'bike')))
        cfg.train_dataloader = detection(path).val_dataloader
        cfg.val_dataloader.dataset.metainfo.classes = names
        with pytest.raises(UserError, match=message):
            data.check_training(cfg)
    cfg.val_dataloader.dataset.metainfo.classes = ('person', 'car', 'bike')
    capsys.readouterr()
    data.check_training(cfg)
    assert "label 2 is 'dog' in train_dataloader.dataset and 'bike' in" in capsys.readouterr().err


# --- label maps


def test_a_part_of_the_classes_of_label_maps(tmp_path):
    import cv2
    import numpy as np
    from mmseg.datasets import ADE20KDataset

    (tmp_path / 'maps').mkdir()
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'maps/a.png'), np.arange(151, dtype=np.uint8).reshape(1, 151))
    cv2.imwrite(str(tmp_path / 'images/a.jpg'), np.zeros((1, 151, 3), np.uint8))
    dataset = dict(
        type='ADE20KDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=('sky', 'wall')),
    )
    model = dict(decode_head=dict(num_classes=2))
    cfg = Config(dict(default_scope='mmseg', model=model, val_dataloader=dict(dataset=dataset)))
    data.check_data(cfg, 'val_dataloader')
    built = ADE20KDataset(**{k: v for k, v in dataset.items() if k != 'type'})
    assert {k: v for k, v in built.label_map.items() if v != 255} == {0: 1, 2: 0}
    cfg.val_dataloader.dataset.metainfo.classes = ('sky', 'walls')
    refused(cfg, 'among those of ADE20KDataset: walls; did you mean wall')


# --- classification


def classification(root, prefix='val', number=3, **dataset):
    inner = dict(type='CustomDataset', data_root=str(root), data_prefix=prefix) | dataset
    model = dict(backbone=dict(num_classes=9), head=dict(num_classes=number))
    return Config(dict(default_scope='mmpretrain', model=model, val_dataloader=dict(dataset=inner)))


@pytest.fixture
def folders(tmp_path):
    for split in ('train', 'val'):
        for name in CATS:
            (tmp_path / split / name).mkdir(parents=True)
    return tmp_path


def test_class_folders_of_splits(folders, capsys):
    cfg = classification(folders)
    cfg.train_dataloader = classification(folders, 'train').val_dataloader
    data.check_training(cfg)
    (folders / 'val/car').rename(folders / 'val/zebra')
    with pytest.raises(
        UserError, match=r"'dog' is 1 in the first and 0 in the second.*missing, em"
    ):
        data.check_training(cfg)
    (folders / 'val/.hidden').mkdir()  # is a class to MMPretrain
    with pytest.raises(UserError, match=r'has 3 classes, .* has 4; only .*: car, .hidden, ze'):
        data.check_training(cfg)
    refused(cfg, r'reads every folder in .*val as a class, also \.hidden; delete it')
    (folders / 'val/.hidden').rmdir()
    (folders / 'val/zebra').rmdir()
    (folders / 'val/person').rename(folders / 'val/car')
    with pytest.raises(UserError, match=r'has 3 classes, .* has 2; only in one of them: person'):
        data.check_training(cfg)
    refused(cfg, r'num_classes is 3, but .* val_dataloader .its class folders. has 2 classes')
    cfg.val_dataloader.dataset.type = 'ImageNet'  # which knows its classes
    cfg.train_dataloader.dataset.type = 'ImageNet'
    with pytest.raises(UserError, match=r'has 1000 classes, the class folders in .*val has 2'):
        data.check_data(cfg, 'val_dataloader')
    assert 'Traceback' not in capsys.readouterr().err


def test_classes_without_images(folders, capsys):
    cfg = classification(folders, 'train')
    cfg.train_dataloader = cfg.val_dataloader
    for name in CATS[1:]:
        (folders / 'train' / name / '0.png').touch()
    (folders / 'train' / CATS[0] / '.DS_Store').touch()
    data.check_data(cfg, 'train_dataloader')
    text = f'warning: train_dataloader: 1 of 3 classes have no image: {CATS[0]}; nothing trains'
    assert text in capsys.readouterr().err
    (folders / 'list.txt').write_text('a.png 0\nb.png 2\n')
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    data.check_data(cfg, 'train_dataloader')
    assert '1 of 3 classes have no image: 1; nothing' in capsys.readouterr().err
    data.check_data(cfg, 'val_dataloader')
    assert not capsys.readouterr().err


def test_names_of_class_folders(folders, capsys):
    for names, message in (
        (('person', 'car', 'dog'), "'person' is 0 in the first and 2 in the second"),
        (('car', 'dog'), 'has 2 classes, the class folders in .* has 3'),
    ):
        cfg = classification(folders, number=len(names), metainfo=dict(classes=names))
        refused(cfg, message)
    for names in (('car', 'dog', 'person'), ('Auto', 'Hund', 'Mensch')):
        data.check_data(classification(folders, metainfo=dict(classes=names)), 'val_dataloader')
    (folders / 'names.txt').write_text('car\ndog\nperson\n')
    for given in (str(folders / 'names.txt'), ['car', 'dog', 'person']):
        data.check_data(classification(folders, classes=given), 'val_dataloader')
    refused(classification(folders, classes='car'), r"one class .* comma: classes=\('car',\)")
    refused(classification(folders, 'images'), 'images does not exist')
    (folders / 'images').mkdir()
    refused(classification(folders, 'images'), 'images has no class folders')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(('lines', 'message'), [
    (['a.png 0', 'b c.png 2'], None),
    (['a.png 0', 'b.png 3'], 'line 2: label 3 is not in 0..2; labels start at 0'),
    (['a.png 0', 'b.png 17'], 'line 2: label 17 is not in 0..2$'),
    (['a.png', 'b.png 1'], "line 1: 'a.png' does not end with a label; expected FILE LABEL"),
    (['a.png 0', ''], "line 2: '' does not end with a label"),
    (['a.png -1'], 'does not end with a label'),
    (['a.png dog'], 'does not end with a label'),
])  # fmt: skip
def test_lists_of_labels(folders, lines, message):
    (folders / 'meta').mkdir()
    (folders / 'meta/val.txt').write_text('\n'.join(lines) + '\n')
    cases = [dict(ann_file='meta/val.txt'), dict(ann_file='meta/val.txt', classes=CATS)]
    cases += [dict(type='ImageNet', data_prefix='', split='val', classes=CATS)]
    for case in cases:
        if message:
            refused(classification(folders, **case), message)
        else:
            data.check_data(classification(folders, **case), 'val_dataloader')


def test_files_in_the_format_of_openmmlab(folders):
    def write(name, classes, labels=(0, 1, 2)):
        entries = [dict(img_path='a.png', gt_label=label) for label in labels]
        meta = dict(classes=classes) if classes else {}
        (folders / name).write_text(json.dumps(dict(metainfo=meta, data_list=entries)))

    def config(name, **changes):
        return classification(folders, ann_file=name, type='BaseDataset', **changes)

    write('a.json', CATS)
    write('b.json', CATS[::-1])
    cfg = config('b.json')
    cfg.train_dataloader = config('a.json').val_dataloader
    data.check_data(cfg, 'val_dataloader')
    with pytest.raises(UserError, match="'person' is 0 in the first and 2 in the second"):
        data.check_training(cfg)
    refused(config('a.json', number=4), 'num_classes is 4, but .* has 3 classes')
    write('c.json', None, labels=(0, [1, 3]))
    refused(config('c.json'), r'c.json, data_list\[1\]: label 3 is not in 0..2')
    write('c.json', None, labels=(0, -1))
    refused(config('c.json'), 'label -1 is not in 0..2')
    (folders / 'c.json').write_text('{"data_list": [')
    refused(config('c.json'), 'c.json cannot be read as JSON')


@pytest.mark.parametrize(('metric', 'message'), [
    (dict(type='Accuracy', topk=(1, 3)), None),
    (dict(type='Accuracy', topk=(1, 5)), 'val_evaluator.topk has 5, but there are 3 classes only'),
    (dict(type='Accuracy', topk=4), 'val_evaluator.topk has 4'),
    ([dict(type='Accuracy'), dict(type='SingleLabelMetric', num_classes=2)],
     'val_evaluator.1.num_classes is 2, but .* has 3 classes'),
    (dict(type='ConfusionMatrix', num_classes=3), None),
    (dict(type='Evaluator', metrics=[dict(type='Accuracy', topk=9)]), 'topk has 9'),
    (dict(type='hybrid_mm.SubsetAccuracy', valid_labels=[0, 3]), 'valid_labels has 3; the 3 cla'),
    (dict(type='hybrid_mm.SubsetAccuracy', valid_labels=[0, 2]), None),
])  # fmt: skip
def test_arguments_of_metrics(folders, metric, message):
    cfg = classification(folders)
    cfg.val_evaluator = metric
    if message:
        refused(cfg, message)
    else:
        data.check_data(cfg, 'val_dataloader')


def test_accuracy_while_training(folders):
    cfg = classification(folders)
    cfg.model.head.update(topk=(1, 5))
    data.check_data(cfg, 'val_dataloader')  # a head computes it on demand only
    cfg.model.head.cal_acc = True
    refused(cfg, 'model.head.topk has 5, but there are 3')


def test_labels_as_vectors(folders):
    cfg = classification(folders)
    cfg.train_dataloader = cfg.val_dataloader
    cfg.data_preprocessor = dict(num_classes=1000)
    data.check_data(cfg, 'train_dataloader')  # it is not used
    for key, changes in (
        ('data_preprocessor', dict(to_onehot=True)),
        ('data_preprocessor', dict(batch_augments=dict(augments=[dict(type='Mixup')]))),
        ('model', dict(train_cfg=dict(augments=[dict(type='Mixup')]))),
    ):
        other = Config(cfg.to_dict())
        other[key].update(changes)
        refused(other, 'num_classes is 1000, but .* has 3 classes', 'train_dataloader')
        other.data_preprocessor.num_classes = 3
        data.check_data(other, 'train_dataloader')


def test_heads_with_classes_of_their_own(tmp_path):
    """Of HTC and Panoptic FPN, which see stuff beside the things of COCO, and of STDC."""
    from hybrid_mm.run.checks.classes import check_num_classes
    from hybrid_mm.run.config import load_config

    names = [str(i) for i in range(80)]
    model = load_config(str(ROOT / 'configs/lesa/htc_lesa-wrn50_fpn_4xb1-20e_coco.py')).model
    check_num_classes(model, names, 'x')
    with pytest.raises(UserError, match=r'bbox_head.0.num_classes is 80, but x has 79'):
        check_num_classes(model, names[1:], 'x')
    panoptic = dict(
        roi_head=dict(bbox_head=dict(num_classes=80)), semantic_head=dict(num_classes=54)
    )
    check_num_classes(panoptic, list(map(str, range(133))), 'x', things=80)
    with pytest.raises(UserError, match='num_classes is 80, but x has 133'):
        check_num_classes(panoptic, list(map(str, range(133))), 'x')
    heads = [dict(type='FCNHead', num_classes=80), dict(type='STDCHead', num_classes=2)]
    check_num_classes(dict(auxiliary_head=heads), names, 'x')


def test_things_and_stuff(tmp_path):
    cfg = detection(coco_file(tmp_path / 'a.json'))
    cfg.model = dict(panoptic_head=dict(num_things_classes=2, num_stuff_classes=1))
    data.check_data(cfg, 'val_dataloader')
    cfg.model.panoptic_head.num_things_classes = 80
    refused(cfg, 'model.panoptic_head: num_things_classes 80 and num_stuff_classes 1 are not the 3')
    path = tmp_path / 'panoptic.json'
    categories = [
        dict(id=i, name=n, isthing=t) for i, n, t in ((1, 'sky', 0), (2, 'a', 1), (3, 'b', 1))
    ]
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    cfg.model.panoptic_head.num_things_classes = 2
    cfg.val_dataloader.dataset.update(type='CocoPanopticDataset', ann_file=str(path))
    for names, message in (
        (('b', 'a', 'sky'), None),
        (('a', 'sky', 'b'), r"the class 'sky' is stuff .* before things \(a, b\)"),
    ):
        cfg.val_dataloader.dataset.metainfo.classes = names
        refused(cfg, message) if message else data.check_data(cfg, 'val_dataloader')
    cfg.val_dataloader.dataset.metainfo.classes = ('b', 'a', 'sky')
    cfg.model.panoptic_head.update(num_things_classes=1, num_stuff_classes=2)
    refused(cfg, '2 of the classes are things .* num_things_classes of the model is 1')


def test_ignored_label_of_metric_and_data(tmp_path, capsys):
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=CATS))
    model = dict(decode_head=dict(num_classes=3))
    cfg = Config(dict(default_scope='mmseg', model=model, test_dataloader=dict(dataset=dataset)))
    cfg.test_evaluator = dict(type='IoUMetric')
    for given, counted, told in ((255, 255, 0), (254, 255, 1), (254, 254, 0)):
        cfg.test_dataloader.dataset.ignore_index = given
        cfg.test_evaluator.ignore_index = counted
        data.check_data(cfg, 'test_dataloader')
        assert capsys.readouterr().err.count('test_evaluator.ignore_index=254') == told


# --- names in general


def test_what_has_moved():
    assert moved('abc', 'abc') == [] == moved('abc', 'xyz') == moved('abc', 'ab')
    assert moved('abc', 'bac') == ['a', 'b'] and moved('abc', 'xab') == ['a', 'b']
    assert moved(['crane', 'a', 'crane'], ['a', 'crane', 'crane']) == ['a']


def test_spelling():
    for name, there in (('Hot Dog', 'hot_dog'), ('a  b', 'A-b')):
        assert spelling(name, ['hot', there]) == f'; {name!r} is spelled {there!r} there'
    assert (
        spelling('hors', ['horse', 'x']) == '; did you mean horse?' and spelling('q', ['x']) == ''
    )


def test_names_in_checkpoints_of_all_versions():
    for meta in (
        dict(dataset_meta=dict(classes=CATS)),
        dict(dataset_meta=dict(CLASSES=CATS)),
        dict(dataset_meta=[dict(classes=CATS), dict(classes=('x',))]),
        dict(CLASSES=list(CATS)),
    ):
        assert classes_of_checkpoint(dict(meta=meta)) == list(CATS)
    for meta in (None, dict(), dict(dataset_meta=None), dict(CLASSES='person')):
        assert classes_of_checkpoint(dict(meta=meta)) is None
    assert meta_of_checkpoint(dict(meta=dict(CLASSES=CATS, PALETTE=[1]))) == dict(
        classes=CATS, palette=[1]
    )
