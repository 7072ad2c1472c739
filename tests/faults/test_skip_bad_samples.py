"""``skip_bad_samples`` in whole runs, and the wrapper that does it."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATA_SAMPLERS, DATASETS, DefaultScope
from PIL import Image

from hybrid_mm.data import CheckedDataset, SeededDataset
from hybrid_mm.data.checked import BadSampleError
from hybrid_mm.data.sample_check import SampleCheck
from hybrid_mm.run.launch import set_sample_checks


def break_images(root, folder, number):
    """Truncate the first images."""
    for i in range(number):
        path = root / folder / f'{i}.png'
        path.write_bytes(path.read_bytes()[:500])


def wrapped(config, skip=0):
    cfg = Config.fromfile(config)
    spec = dict(
        type='hybrid_mm.CheckedDataset',
        skip_bad_samples=skip,
        dataset=cfg.train_dataloader.dataset,
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(spec)


def options(root, skip, workers):
    """Options of a run over all images, of which broken ones are met surely."""
    return (
        '--no-validate',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={root}',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
        'train_cfg.max_iters=5',  # more than an epoch of 4 batches
        *([f'skip_bad_samples={skip}'] if skip else []),
    )


@pytest.mark.parametrize(('layout', 'workers'), [('coco', 2), ('ade', 0)])
def test_training_skips_and_counts(layout, workers, tool, fails, request, tmp_path):
    root = request.getfixturevalue(layout)
    config = request.getfixturevalue('det_config' if layout == 'coco' else 'seg_config')
    folder = 'train' if layout == 'coco' else 'images/training'
    break_images(root, folder, 2)
    work_dir = tmp_path / 'w'
    run = ('train', config, '--work-dir', work_dir)
    assert tool(*run, *options(root, 2, workers))[0] == 0
    (log,) = work_dir.glob('*/*.log')
    found = [line for line in log.read_text().splitlines() if 'broken sample skipped' in line]
    assert len(found) == 2  # once each, though met in every epoch
    assert {i for line in found for i in '01' if f'{folder}/{i}.png is truncated' in line} == {
        *'01'
    }
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    assert len(scalars.read_text().splitlines()) == 5
    text = fails(*run, *options(root, 1, workers))
    assert 'error: 2 broken samples, skip_bad_samples=1 tolerates no more; the last: ' in text
    text = fails(*run, *options(root, 0, workers))
    assert text.startswith('error: broken sample: ') and '; skip_bad_samples=N' in text


def test_evaluation_never_skips(fails, coco, det_config, tmp_path):
    break_images(coco, 'val', 1)
    move = f'val_dataloader.dataset.data_root={coco}'
    text = fails(
        *('train', det_config, '--work-dir', tmp_path / 'w', '--cfg-options', move),
        *('skip_bad_samples=5', 'train_cfg.val_interval=1', 'val_dataloader.num_workers=1'),
    )
    assert 'val/0.png is truncated' in text and 'skip_bad_samples' not in text
    cfg = Config.fromfile(det_config)
    dataset = dict(type='hybrid_mm.CheckedDataset', dataset=cfg.val_dataloader.dataset)
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        pytest.raises(ValueError, match='for training'),
    ):
        DATASETS.build(dict(dataset, skip_bad_samples=1))


def test_images_without_objects_train(tool, coco, det_config, tmp_path):
    """Empty, crowd-only and left-out annotations: finite losses."""
    path = coco / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] > 3]
    for entry in data['annotations']:
        entry['iscrowd'] = int(entry['image_id'] > 5)
    path.write_text(json.dumps(data))
    run = ('train', det_config, '--work-dir', tmp_path / 'w')
    assert tool(*run, *options(coco, 0, 0))[0] == 0
    (scalars,) = (tmp_path / 'w').glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in scalars.read_text().splitlines()]
    assert len(losses) == 5
    assert all(0 < loss < 100 for loss in losses)


@pytest.mark.parametrize('skip', [-1, 1.5, True, 'many'])
def test_wrong_numbers(tiny_coco, det_config, skip):
    with pytest.raises(ValueError, match='skip_bad_samples must'):
        wrapped(det_config, skip)


def test_replacement_is_the_next_good_sample(coco, det_config):
    cfg = Config.fromfile(det_config)
    break_images(coco, 'train', 2)
    cfg.train_dataloader.dataset.data_root = str(coco)
    spec = dict(
        type='hybrid_mm.CheckedDataset', skip_bad_samples=2, dataset=cfg.train_dataloader.dataset
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = DATASETS.build(spec)
    got = [data[i]['data_samples'].img_id for i in range(len(data))]
    assert got == [2, 2, 2, 3, 4, 5, 6, 7]
    assert data.num_bad_samples == 2
    copy = pickle.loads(pickle.dumps(data))  # what a spawned worker gets
    assert copy.skip_bad_samples == 2 and len(copy) == 8


def test_it_stands_in_for_the_data_set(tiny_coco, det_config):
    """Samplers and hooks ask for lengths and infos; a new pipeline is checked as well."""
    data = wrapped(det_config)
    assert isinstance(data, CheckedDataset)
    assert data.metainfo['classes'] == ('square', 'disc', 'bar')
    assert data.get_data_info(3)['img_id'] == 3
    sampler = DATA_SAMPLERS.build(dict(type='DefaultSampler', shuffle=False, dataset=data))
    batches = DATA_SAMPLERS.build(
        dict(type='mmdet.AspectRatioBatchSampler', sampler=sampler, batch_size=2)
    )
    assert [len(batch) for batch in batches] == [2] * 4
    steps = data.pipeline.transforms
    assert [type(step).__name__ for step in steps].index('SampleCheck') == 3
    data.pipeline = type(data.pipeline)([step for step in steps if type(step) is not SampleCheck])
    assert sum(type(step) is SampleCheck for step in data.dataset.pipeline.transforms) == 1
    with pytest.raises(AttributeError):
        _ = data.nothing


@pytest.mark.parametrize('wrapper', ['repeat', 'concat', 'mix'])
def test_inside_of_other_wrappers(wrapper, tiny_coco, det_config):
    cfg = Config.fromfile(det_config)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        repeat=dict(type='RepeatDataset', times=2, dataset=inner),
        concat=dict(type='ConcatDataset', datasets=[inner, inner]),
        mix=dict(type='MultiImageMixDataset', dataset=inner, pipeline=[]),
    )[wrapper]
    cfg.skip_bad_samples = 3
    set_sample_checks(cfg)
    set_sample_checks(cfg)  # a config that has it already is left alone
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = DATASETS.build(cfg.train_dataloader.dataset)
    checked = data.datasets[0] if wrapper == 'concat' else data.dataset
    assert isinstance(checked, CheckedDataset) and not isinstance(checked.dataset, CheckedDataset)
    assert checked.skip_bad_samples == 3
    assert cfg.val_dataloader.dataset.skip_bad_samples == 0
    assert len(data) == (8 if wrapper == 'mix' else 16)
    assert data[7]['inputs'].shape == (3, 64, 64)


def test_error_of_a_worker_is_one_line():
    text = 'Caught BadSampleError in DataLoader worker process 0.\nOriginal Traceback ...\n'
    text += 'hybrid_mm.data.checked.BadSampleError: broken sample: a.png: is truncated\n'
    assert str(BadSampleError(text)) == 'broken sample: a.png: is truncated'


def test_nothing_good_is_left(coco, det_config):
    for path in (coco / 'train').glob('*.png'):
        path.write_bytes(b'')
    cfg = Config.fromfile(det_config)
    cfg.train_dataloader.dataset.data_root = str(coco)
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = CheckedDataset(cfg.train_dataloader.dataset, skip_bad_samples=9)
    with pytest.raises(BadSampleError, match='no good sample is left'):
        data[0]


@pytest.mark.parametrize(('label', 'ignore_index', 'good'), [
    (2, 255, True), (3, 255, False), (255, 255, True), (254, 255, False),
    (254, 254, True), (255, 254, True), (253, 254, False), (3, 3, True), (4, 3, False),
    (255, 3, True),
])  # fmt: skip
def test_labels_that_are_ignored(label, ignore_index, good):
    """255, which padding and label maps have, beside the one of the data set."""
    labels = np.array([[0, 1], [2, label], [2, 1]], np.uint8)
    sample = dict(seg_map_path='x.png', gt_seg_map=labels, ori_shape=(3, 2))
    check = SampleCheck(3, ignore_index)
    if good:
        assert check(sample) is sample
    else:
        text = rf'label {label} \(after .*; expected 0\.\.2 and {ignore_index} \(ignored\)'
        with pytest.raises(ValueError, match=text):
            check(sample)


def test_ignore_index_of_the_data_set(ade, seg_config):
    """With reduce_zero_label: 0 becomes 255, 3 is the last class, 6 becomes 5."""
    path = ade / 'annotations' / 'training' / '0.png'
    labels = np.asarray(Image.open(path)).copy()
    cfg = Config.fromfile(seg_config)
    spec = dict(cfg.train_dataloader.dataset, data_root=str(ade))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    labels[0, :3] = 6
    Image.fromarray(labels).save(path)
    with DefaultScope.overwrite_default_scope('mmseg'):
        strict = CheckedDataset(spec)
        with pytest.raises(BadSampleError, match=r'has the label 5 .*0\.\.2 and 255'):
            [strict[i] for i in range(8)]
        loose = CheckedDataset(dict(spec, ignore_index=5))
        maps = [loose[i]['data_samples'].gt_sem_seg.data for i in range(8)]
    assert {5, 255, 0, 1, 2} == set(torch.stack(maps).unique().tolist())


def test_copies_are_of_the_wrapper(det_config):
    """Methods by which Python copies and pickles are not those of the inner data set."""

    class Odd(BaseDataset):
        def load_data_list(self):
            return [dict(x=1)]

        def __deepcopy__(self, memo):
            return Odd()

    wrapper = SeededDataset(Odd())
    again = copy.deepcopy(wrapper)
    assert type(again) is SeededDataset and type(again.dataset) is Odd
    assert again.dataset is not wrapper.dataset
    assert type(copy.copy(wrapper)) is SeededDataset


def test_size_of_the_picture_is_looked_at(tmp_path):
    Image.new('RGB', (5, 4)).save(tmp_path / 'a.png')
    results = dict(img_path=str(tmp_path / 'a.png'), ori_shape=(4, 5), height=5, width=4)
    with pytest.raises(ValueError, match='4 x 5 pixels'):
        SampleCheck()(results)
