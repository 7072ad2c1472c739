"""Classes in another order, from training to predictions: right, or refused, in every tool."""

import json

import cv2
import numpy as np
import pytest

from hybrid_mm.checkpoints import read_checkpoint

ORDER = 'metainfo.classes=(bar,square,disc)'


@pytest.fixture
def det(det_config, work_dir_of):
    """Config and checkpoint of a detector of (square, disc, bar)."""
    return det_config, work_dir_of('det') / 'iter_2.pth'


def in_order(*loaders):
    return ('--cfg-options', *(f'{loader}_dataloader.dataset.{ORDER}' for loader in loaders))


def test_results_do_not_depend_on_the_order_of_files(tool, det, tiny_coco, tmp_path):
    content = json.loads((tiny_coco / 'annotations/val.json').read_text())
    content['categories'].reverse()
    (tmp_path / 'reversed.json').write_text(json.dumps(content))
    written = []
    for file in (tiny_coco / 'annotations/val.json', tmp_path / 'reversed.json'):
        options = [f'test_dataloader.dataset.ann_file={file}', f'test_evaluator.ann_file={file}']
        options += ['test_evaluator.classwise=True', 'model.test_cfg.score_thr=0.0']
        options += [f'test_evaluator.outfile_prefix={tmp_path / file.stem}']
        status, err = tool('test', *det, '--work-dir', tmp_path / 'w', '--cfg-options', *options)
        assert status == 0 and err.count('lists its categories in another order') == len(written)
        written.append(json.loads((tmp_path / f'{file.stem}.bbox.json').read_text()))
    assert written[0] == written[1]
    assert {entry['category_id'] for entry in written[0]} >= {1, 3}  # or it would not matter


def test_checkpoints_of_another_order(fails, tool, det, tmp_path):
    config, checkpoint = det
    work = ('--work-dir', tmp_path / 'w')
    text = fails('test', *det, *work, *in_order('test'))
    assert "'square' is 0 in the first and 1 in the second" in text
    assert 'has the classes square, disc, bar; test_dataloader.dataset: bar, square, disc' in text
    both = in_order('train', 'val')
    text = fails('train', config, *work, '--resume', checkpoint, *both)
    assert "'square' is 0 in the first and 1 in the second" in text
    options = (*both, f'load_from={checkpoint}')
    status, err = tool('train', config, *work, '--no-validate', *options)
    assert status == 0 and err.count("'square' is 0 in the first and 1 in the second") == 1


def test_training_and_validation_in_other_orders(fails, det_config, tmp_path):
    for flags in ((), ('--dry-run',)):
        text = fails('train', det_config, '--work-dir', tmp_path / 'w', *flags, *in_order('val'))
        assert text.startswith('error: train_dataloader.dataset and val_dataloader.dataset give')
    text = fails(
        'train', det_config, '--cfg-options', 'train_dataloader.dataset.metainfo.classes=square'
    )
    assert "one class is written with a comma: classes=('square',)" in text


def test_predictions_have_the_names_of_the_checkpoint(tool, det, tiny_coco, tmp_path):
    """And the ids of a file that lists its categories in another order."""
    content = json.loads((tiny_coco / 'annotations/val.json').read_text())
    content['categories'] = [
        dict(id=i + 5, name=n) for i, n in enumerate(('bar', 'disc', 'square'))
    ]
    (tmp_path / 'ids.json').write_text(json.dumps(content | dict(annotations=[])))
    entries = {}
    for name, flags in (
        ('own', ()),
        ('other', in_order('test')),
        ('ids', ('--annotations', tmp_path / 'ids.json')),
    ):
        out = ('--out', tmp_path / name, '--score-thr', '0.003')
        options = flags if '--cfg-options' in flags else (*flags, '--cfg-options')
        options = (*options, 'model.test_cfg.score_thr=0.001')
        status, err = tool('predict', *det, tiny_coco / 'val', *out, *options)
        assert status == 0
        assert err.count('its names are given to the results (square, disc, bar)') == (
            name == 'other'
        )
        entries[name] = json.loads((tmp_path / name / 'predictions.json').read_text())
    assert entries['own'] and entries['own'] == entries['other']
    ids = dict(bar=5, disc=6, square=7)
    assert [e['category_id'] for e in entries['ids']] == [
        ids[e['category_name']] for e in entries['own']
    ]


# --- classification

CLASSIFIER = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='hybrid_mm.VAN', out_indices=(3,),
                  arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16,
              loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=3, mean=[127.] * 3, std=[50.] * 3)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)),
            dict(type='PackInputs')]
loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True))
dataset = dict(type='CustomDataset', data_root='{root}', pipeline=pipeline)
train_dataloader = dict(dataset=dict(data_prefix='train', **dataset), **loader)
val_dataloader = dict(dataset=dict(data_prefix='val', test_mode=True, **dataset), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 2))
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', by_epoch=False))
randomness = dict(seed=0)
"""


@pytest.fixture
def classifier(tmp_path):
    """Config of a classifier of three colours, in folders of four training images each."""
    for split, number in (('train', 4), ('val', 2)):
        for i, name in enumerate(('blue', 'green', 'red')):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for j in range(number):
                image = np.zeros((40, 40, 3), np.uint8)
                image[..., i] = 255 - j
                cv2.imwrite(str(folder / f'{j}.png'), image)
    path = tmp_path / 'cls.py'
    path.write_text(CLASSIFIER.replace('{root}', str(tmp_path)))
    return path


def test_class_folders(tool, fails, classifier, tmp_path):
    work, missing = ('--work-dir', tmp_path / 'w'), tmp_path / 'val/green'
    status, err = tool('train', classifier, *work)
    assert status == 0, err
    checkpoint = tmp_path / 'w/iter_2.pth'
    assert read_checkpoint(str(checkpoint))['meta']['dataset_meta']['classes'] == (
        'blue',
        'green',
        'red',
    )
    assert tool('test', classifier, checkpoint, *work)[0] == 0
    text = fails('train', classifier, *work, '--cfg-options', 'val_evaluator.topk=5')
    assert 'val_evaluator.topk has 5, but there are 3 classes only' in text
    missing.rename(tmp_path / 'val/zoo')
    for flags in ((), ('--dry-run',)):
        text = fails('train', classifier, *work, *flags)
        assert "'red' is 2 in the first and 1 in the second" in text
        assert 'make those that are missing, empty' in text
    text = fails('test', classifier, checkpoint, *work)
    assert f'{checkpoint} and test_dataloader.dataset give other labels to the same' in text
    (tmp_path / 'val/zoo').rename(tmp_path / 'zoo')
    text = fails('train', classifier, *work)
    assert "'red' is 2 in the first and 1 in the second" in text
    text = fails('test', classifier, checkpoint, *work)
    assert 'model.head.num_classes is 3, but the data set of' in text
    assert 'has 2 classes (blue, red)' in text
    missing.mkdir()  # as the message says
    for name, arguments in (('train', ()), ('test', (checkpoint,))):
        assert tool(name, classifier, *arguments, *work)[0] == 0
