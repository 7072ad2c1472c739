"""The tools on images of six channels and 16 bits, and of one: train, test, predict, export."""

import json

import cv2
import numpy as np
import pytest
import torch

from hybrid_mm import apis
from hybrid_mm.backbones import VAN

tifffile = pytest.importorskip('tifffile')
CHANNELS = 6


def deep(path):
    """The colours of a picture twice, of 12 bits."""
    rgb = cv2.imread(str(path))[..., ::-1]
    return np.concatenate([rgb, rgb], 2).astype(np.uint16) * 16


def options(kind, load, mean):
    """The changes of a small config."""
    number = len(mean)
    steps = {f'{part}_dataloader.dataset.pipeline.0': load for part in ('train', 'val', 'test')}
    return {
        **steps,
        'model.data_preprocessor.type': f'hybrid_mm.Multichannel{kind}',
        'model.data_preprocessor.mean': mean,
        'model.data_preprocessor.std': [1000.0] * number,
        'model.backbone.in_channels': number,
    }


@pytest.fixture
def config(request, tmp_path):
    """A function that writes a config on top of one, with changes."""

    def write(name, changes):
        from mmengine.config import Config

        cfg = Config.fromfile(request.getfixturevalue(f'{name}_config'))
        cfg.merge_from_dict(changes)
        path = tmp_path / f'{name}_channels.py'
        cfg.dump(path)
        return path

    return write


@pytest.fixture
def six(tiny_coco, tmp_path):
    """The tiny data set of boxes with six channels, as TIFF files and, of validation, arrays."""
    root = tmp_path / 'six'
    (root / 'annotations').mkdir(parents=True)
    for split, suffix in (('train', '.tif'), ('val', '.npy')):
        (root / split).mkdir()
        for path in (tiny_coco / split).iterdir():
            target = root / split / f'{path.stem}{suffix}'
            if suffix == '.npy':
                np.save(target, deep(path))
            else:
                tifffile.imwrite(target, deep(path), planarconfig='contig')
        text = (tiny_coco / f'annotations/{split}.json').read_text().replace('.png', suffix)
        (root / f'annotations/{split}.json').write_text(text)
    return root


def test_detector(tool, config, six, tiny_coco, tmp_path):
    """Train from inflated weights, test with pictures, predict on files and arrays."""
    torch.manual_seed(0)
    arch = dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
    torch.save(VAN(arch).state_dict(), tmp_path / 'three.pth')
    load = dict(type='hybrid_mm.LoadMultichannelImage', channels=CHANNELS, picture=[3, 4, 5])
    changes = options('DetDataPreprocessor', load, [2000.0] * CHANNELS)
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'three.pth'), inflate_channels=True)
    changes['model.backbone.init_cfg'] = init
    for part in ('train', 'val', 'test'):
        changes[f'{part}_dataloader.dataset.data_root'] = str(six)
    for part in ('val', 'test'):
        changes[f'{part}_evaluator.ann_file'] = str(six / 'annotations/val.json')
    path = config('det', changes)
    status, err = tool('train', path, '--work-dir', tmp_path / 'run')
    assert status == 0, err
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'of 3 channels inflated to 6: channels [0, 1, 2, 0, 1, 2] of the file, times 3/6' in log
    assert 'coco/bbox_mAP' in log
    checkpoint = tmp_path / 'run/iter_2.pth'
    low = ('--cfg-options', 'model.test_cfg.score_thr=0.0')
    shown = ('--show-dir', 'shown', '--work-dir', tmp_path / 'tested')
    status, err = tool('test', path, checkpoint, *shown, *low)
    assert status == 0, err
    drawn = sorted(p.name for p in (tmp_path / 'tested').glob('*/shown/*'))
    assert drawn == [f'{i}.npy.png' for i in range(4)]

    status, err = tool('predict', path, checkpoint, six / 'val', '--out', tmp_path / 'out', *low)
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / 'out/pictures').iterdir()) == [
        f'{i}.png' for i in range(4)
    ]
    assert {
        e['file_name'] for e in json.loads((tmp_path / 'out/predictions.json').read_text())
    } <= {f'{i}.npy' for i in range(4)}
    predictor = apis.Predictor(path, checkpoint, options={'model.test_cfg.score_thr': 0.0})
    array = deep(tiny_coco / 'val/0.png')
    one, two = predictor([six / 'val/0.npy', array])
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert one.image.shape == (64, 64, 3) and one.image.dtype == np.uint8
    broken = six / 'val/0.npy'
    np.save(broken, array[..., :5])
    for wrong, text in (
        (broken, '0.npy has 5 channels; expected 6'),
        (array[..., 0], 'array0 has 1'),
    ):
        with pytest.raises(ValueError, match=text):
            predictor(wrong)


@pytest.mark.slow
def test_segmenter_of_one_channel(tool, config, tiny_ade, tmp_path):
    """16-bit grey PNG files: trained, resumed, tested, exported, and the same by the file."""
    pytest.importorskip('onnxruntime')
    for path in (tiny_ade / 'images').rglob('*.png'):
        target = tmp_path / 'grey' / path.relative_to(tiny_ade)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), deep(path)[..., 0])
    (tmp_path / 'grey/annotations').symlink_to(tiny_ade / 'annotations')
    load = dict(type='hybrid_mm.LoadMultichannelImage', channels=1)
    changes = options('SegDataPreProcessor', load, [2000.0])
    for part in ('train', 'val', 'test'):
        changes[f'{part}_dataloader.dataset.data_root'] = str(tmp_path / 'grey')
    path = config('seg', changes)
    for flags in (('--cfg-options', 'train_cfg.max_iters=2'), ('--resume',)):
        more = ('--cfg-options', 'train_cfg.max_iters=4') if '--resume' in flags else ()
        status, err = tool('train', path, '--work-dir', tmp_path / 'run', *flags, *more)
        assert status == 0, err
    checkpoint = tmp_path / 'run/iter_4.pth'
    bytes_ = ('--input', 'uint8')
    status, err = tool('export_onnx', path, checkpoint, tmp_path / 'grey.onnx', *bytes_)
    assert status == 2 and 'export it with --input float' in err
    status, err = tool('export_onnx', path, checkpoint, tmp_path / 'grey.onnx')
    assert status == 0 and '--input float: images of LoadMultichannelImage may' in err, err
    image = tmp_path / 'grey/images/validation/0.png'
    (one,) = apis.Predictor(path, checkpoint)(image)
    (two,) = apis.Predictor(tmp_path / 'grey.onnx')(image)
    np.testing.assert_array_equal(one.label_map, two.label_map)
    np.testing.assert_array_equal(one.image, two.image)
