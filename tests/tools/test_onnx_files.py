"""tools/predict.py and tools/test.py with a file in ONNX in the place of config and checkpoint."""

import json
import pickle

import cv2
import numpy as np
import pytest


@pytest.fixture
def photos(tiny_coco):
    return tiny_coco / 'val'


def test_predict(tool, onnx_file, photos, tiny_coco, tmp_path):
    out, file = tmp_path / 'out', onnx_file('detection')
    ids = tiny_coco / 'annotations' / 'val.json'
    # flags between the file and the images, as between any other arguments
    run = (file, '--out', out, '--batch-size', '3', '--score-thr', '0.01', photos)
    status, err = tool('predict', *run, '--annotations', ids)
    assert status == 0, err
    entries = json.loads((out / 'predictions.json').read_text())
    assert len(entries) == 8 and {e['file_name'] for e in entries} == {f'{i}.png' for i in range(4)}
    for entry in entries:
        assert entry['category_name'] in ('square', 'bar')
        assert entry['category_id'] in (1, 3) and 'segmentation' in entry
        image = cv2.imread(str(photos / entry['file_name']))
        channel = 2 if entry['category_id'] == 3 else 1  # the first object is a bar
        assert entry['score'] == pytest.approx(image[..., channel].mean() / 255, abs=1e-4)
    assert len(list((out / 'pictures').glob('*.png'))) == 4


def test_test_of_a_detector(tool, onnx_file, det_config, tmp_path):
    """Metrics, predictions and pictures."""
    out, file, work = tmp_path / 'x.pkl', onnx_file('detection'), tmp_path / 'work'
    run = (file, '--config', det_config, '--work-dir', work, '--out', out, '--show-dir', 'drawn')
    status, err = tool('test', *run, '--cfg-options', 'test_dataloader.batch_size=3')
    assert status == 0, err
    with open(out, 'rb') as opened:
        found = pickle.load(opened)
    assert len(found) == 4 and all(len(item['pred_instances']['scores']) == 2 for item in found)
    assert len(list(work.glob('*/drawn/*.png'))) == 4
    (metrics,) = work.glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(metrics.read_text())


def test_test_of_a_segmenter(tool, onnx_file, seg_config, tiny_ade, tmp_path):
    """The channel of highest value is the class, in these pictures: mIoU is that of the maxima."""
    out = tmp_path / 'metrics.json'
    run = (onnx_file('segmentation'), '--config', seg_config, '--work-dir', tmp_path / 'work')
    status, err = tool('test', *run, '--out', out, '--out-item', 'metrics')
    assert status == 0, err
    hits, all_ = np.zeros(3), np.zeros(3)
    for i in range(4):
        image = cv2.imread(str(tiny_ade / 'images/validation' / f'{i}.png'))
        labels = cv2.imread(str(tiny_ade / 'annotations/validation' / f'{i}.png'), -1).astype(int)
        found = image[..., ::-1].argmax(2)
        for label in range(3):
            a, b = (found == label) & (labels > 0), labels == label + 1
            hits[label] += (a & b).sum()
            all_[label] += (a | b).sum()
    assert json.loads(out.read_text())['mIoU'] == pytest.approx(
        100 * (hits / all_).mean(), abs=0.01
    )


def test_wrong_uses(tool, onnx_file, det_config, seg_config, photos, tmp_path):
    file, out = onnx_file('detection'), ('--out', tmp_path / 'out')
    work = ('--work-dir', tmp_path / 'work')
    for run, text in (
        (('predict', det_config, file, photos, *out), 'contains config and weights'),
        (('predict', file, photos, *out, '--tta'), 'test-time augmentation needs the config'),
        (('predict', file, photos, *out, '--cfg-options', 'model.x=1'), 'model.x: '),
        (('test', file, '--config', seg_config, *work), 'is a model for detection, and'),
        (
            ('test', file, '--config', det_config, *work, '--cfg-options', 'model.test_cfg=None'),
            'model.test_cfg: ',
        ),
    ):
        status, err = tool(*run)
        assert status != 0 and text in err, err


def test_wrong_arguments(tool, onnx_file, det_config, capsys):
    file = onnx_file('detection')
    for run, text in (
        ((file,), 'test.py model.onnx --config CONFIG'),
        ((det_config, file), 'test.py model.onnx --config CONFIG'),
        ((det_config, 'x.pth', '--config', det_config), '--config is for a model.onnx'),
        ((file, '--config', det_config, '--amp'), '--amp and --tta'),
        ((file, '--config', det_config, '--tta'), '--amp and --tta'),
    ):
        with pytest.raises(SystemExit):
            tool('test', *run)
        assert text in capsys.readouterr().err


def test_other_classes_and_pipelines(tool, onnx_file, det_config, tmp_path):
    """Classes in another order are an error; other transforms are named."""
    run = ('--config', det_config, '--work-dir', tmp_path / 'work')
    file = onnx_file('detection', classes=['disc', 'square', 'bar'])
    status, err = tool('test', file, *run)
    assert status == 2 and 'give other labels to the same classes' in err
    resize = dict(type='mmdet.Resize', scale=[96, 96], keep_ratio=True)
    load, pack = dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=['img_id'])
    status, err = tool('test', onnx_file('detection', test_pipeline=[load, resize, pack]), *run)
    assert status == 0, err
    assert 'only in the file: Resize(scale=[96, 96], keep_ratio=True)' in err
    assert 'only in the config: Resize(scale=[64, 64], keep_ratio=True)' in err
