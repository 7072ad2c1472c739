"""tools/predict.py."""

import inspect
import json

import cv2
import numpy as np
import pytest

from hybrid_mm import apis
from hybrid_mm.commands import predict
from hybrid_mm.errors import UserError

CLASSIFICATION = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='hybrid_mm.VAN', out_indices=(3,),
                  arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=6, in_channels=16,
              loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=6, mean=[0.] * 3, std=[255.] * 3, to_rgb=True)
test_dataloader = dict(dataset=dict(
    type='CustomDataset', metainfo=dict(classes=list('abcdef')),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
              dict(type='PackInputs')]))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def folder(tiny_coco, tmp_path):
    """Two images, one of them in a subfolder, and a broken one."""
    root = tmp_path / 'photos'
    (root / 'sub').mkdir(parents=True)
    (root / 'a.png').write_bytes((tiny_coco / 'val' / '0.png').read_bytes())
    (root / 'sub' / 'b.png').write_bytes((tiny_coco / 'val' / '1.png').read_bytes())
    (root / 'broken.png').write_bytes((tiny_coco / 'val' / '2.png').read_bytes()[:200])
    (root / 'notes.txt').write_text('no image')
    return root


def test_detection(tool, det_config, folder, tmp_path, work_dir_of):
    out, checkpoint = tmp_path / 'out', work_dir_of('det') / 'iter_2.pth'
    flags = ('--out', out, '--score-thr', '0.003', '--batch-size', '2', '--device', 'cpu')
    flags += ('--cfg-options', 'model.test_cfg.score_thr=0.001')
    status, err = tool('predict', det_config, checkpoint, folder, *flags)
    assert status == 1
    assert 'skipped' in err and 'broken.png' in err and '1 skipped' in err
    assert {p.name for p in out.glob('pictures/**/*.png')} == {'a.png', 'b.png'}
    entries = json.loads((out / 'predictions.json').read_text())
    assert {e['file_name'] for e in entries} == {'a.png', 'sub/b.png'}
    for entry in entries:
        assert entry['category_name'] == ('square', 'disc', 'bar')[entry['category_id']]
        assert entry['score'] >= 0.003
        assert min(entry['bbox']) >= 0 and max(entry['bbox']) <= 64


def test_segmentation(tool, seg_config, folder, tmp_path, work_dir_of):
    (folder / 'broken.png').unlink()
    out, checkpoint = tmp_path / 'out', work_dir_of('seg') / 'iter_2.pth'
    assert tool('predict', seg_config, checkpoint, folder, '--out', out)[0] == 0
    entries = json.loads((out / 'predictions.json').read_text())
    assert [e['file_name'] for e in entries] == ['a.png', 'sub/b.png']
    for entry in entries:
        assert sum(entry['shares'].values()) == pytest.approx(1, abs=1e-5)
        labels = cv2.imread(str(out / entry['label_map']), -1)
        shares = {name: np.mean(labels == i) for i, name in enumerate(('square', 'disc', 'bar'))}
        assert entry['shares'] == {k: pytest.approx(v, abs=1e-5) for k, v in shares.items() if v}


def test_one_image_of_a_classifier(tool, folder, tmp_path):
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    config = tmp_path / 'tiny_cls.py'
    config.write_text(CLASSIFICATION)
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    cfg.model.data_preprocessor = dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'cls.pth')
    out = tmp_path / 'out'
    status, err = tool('predict', config, tmp_path / 'cls.pth', folder / 'a.png', '--out', out)
    assert status == 0, err
    (entry,) = json.loads((out / 'predictions.json').read_text())
    scores = [item['score'] for item in entry['top5']]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert (out / 'pictures' / 'a.png').is_file()


def test_options_reach_predictor_and_writer(fails, det_config, folder, tmp_path, monkeypatch):
    given = {}

    def record(cls, stop=False):
        signature = inspect.signature(cls)

        def call(*args, **kwargs):
            given[cls.__name__] = signature.bind(*args, **kwargs).arguments
            if stop:
                raise UserError('seen')

        return call

    monkeypatch.setattr(predict, 'Predictor', record(apis.Predictor))
    monkeypatch.setattr(predict, 'Writer', record(apis.Writer, stop=True))
    flags = (
        '--device',
        'cpu',
        '--batch-size',
        3,
        '--tta',
        '--score-thr',
        0.25,
        '--annotations',
        'x.json',
        '--out',
        tmp_path / 'o',
        '--force',
    )
    assert 'seen' in fails('predict', det_config, 'w.pth', folder, *flags)
    del given['Predictor']['config']
    assert given['Predictor'] == dict(checkpoint='w.pth', device='cpu', batch_size=3, tta=True)
    expected = dict(predictor=None, out=str(tmp_path / 'o'), threshold=0.25, annotations='x.json')
    expected['force'] = True
    assert given['Writer'] == expected


def test_mistakes(fails, det_config, tmp_path, work_dir_of):
    checkpoint = work_dir_of('det') / 'iter_2.pth'
    out = ('--out', tmp_path / 'out')
    assert 'does not exist' in fails('predict', det_config, checkpoint, tmp_path / 'no', *out)
    (tmp_path / 'empty').mkdir()
    assert 'holds no images' in fails('predict', det_config, checkpoint, tmp_path / 'empty', *out)
    photo = tmp_path / 'x.png'
    cv2.imwrite(str(photo), np.zeros((40, 40, 3), np.uint8))
    device = (*out, '--device', 'cuda:7')
    assert 'not usable here' in fails('predict', det_config, checkpoint, photo, *device)
    option = (*out, '--cfg-options', 'model.bbox_head.num_classes=5')
    assert 'of another shape' in fails('predict', det_config, checkpoint, photo, *option)


def test_a_folder_with_the_results_inside_of_it(tool, fails, det_config, folder, work_dir_of):
    """A second run reads what the first did, and replaces results with --force only."""
    run = ('predict', det_config, work_dir_of('det') / 'iter_2.pth', folder, '--out', folder / 'o')
    assert tool(*run)[0] == 1
    before = {p: p.read_bytes() for p in (folder / 'o').rglob('*') if p.is_file()}
    assert 'has results already' in fails(*run)
    assert {p: p.read_bytes() for p in (folder / 'o').rglob('*') if p.is_file()} == before
    assert tool(*run, '--force')[0] == 1
    assert {p: p.read_bytes() for p in (folder / 'o').rglob('*') if p.is_file()} == before
    assert 'is in the folder of the results' in fails(*run[:3], folder / 'o/pictures', *run[4:])


def test_interrupted(tool, det_config, folder, tmp_path, work_dir_of, monkeypatch):
    """What is done is kept."""
    draw, number = apis.Predictor.draw, iter(range(9))

    def interrupted(self, *args):
        if next(number) == 1:
            raise KeyboardInterrupt
        return draw(self, *args)

    monkeypatch.setattr(apis.Predictor, 'draw', interrupted)
    out = tmp_path / 'out'
    flags = ('--score-thr', 0, '--cfg-options', 'model.test_cfg.score_thr=0.001')
    run = (det_config, work_dir_of('det') / 'iter_2.pth', folder, '--out', out, *flags)
    status, err = tool('predict', *run)
    assert status == 130
    assert 'interrupted: 1 of 3 images done; results in' in err and err.endswith(' --force\n')
    entries = json.loads((out / 'predictions.json').read_text())
    assert {e['file_name'] for e in entries} == {'a.png'}


def test_annotations_without_an_image_are_found_before_the_work(
    fails, det_config, folder, tmp_path, work_dir_of, tiny_coco, monkeypatch
):
    monkeypatch.setattr(apis.Predictor, 'stream', None)
    annotations = ('--annotations', tiny_coco / 'annotations' / 'val.json')
    run = (det_config, work_dir_of('det') / 'iter_2.pth', folder, '--out', tmp_path / 'out')
    assert 'no image of' in fails('predict', *run, *annotations)
