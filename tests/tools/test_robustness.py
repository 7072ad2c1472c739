"""tools/analysis/robustness.py: evaluation under corruption of a detector and a segmenter."""

import json

import pytest
import torch
from PIL import Image

from hybrid_mm.analysis import corruption_study

SMALL = ('--corruptions', 'noise', 'contrast', '--severities', '2', '5')


@pytest.fixture(params=['det', 'seg'])
def model(request, work_dir_of):
    """Config of a task, a checkpoint of it, and the name of its metric."""
    config = request.getfixturevalue(f'{request.param}_config')
    metric = dict(det='coco/bbox_mAP', seg='mIoU')[request.param]
    return config, work_dir_of(request.param) / 'iter_2.pth', metric


# what does not depend on the task
either = pytest.mark.parametrize(
    'model', ['det', pytest.param('seg', marks=pytest.mark.slow)], indirect=True
)


def read(folder):
    return json.loads((folder / 'robustness.json').read_text())


def test_results_and_resuming(tool, model, tmp_path, capsys):
    config, checkpoint, metric = model
    out = tmp_path / 'r'
    # a first run stops half-way; the second has its results and adds the others
    part = ('--corruptions', 'contrast', '--severities', '2')
    assert tool('analysis/robustness', config, checkpoint, '--out', out, *part)[0] == 0
    first = read(out)
    assert set(first['results']) == {'clean', 'contrast'}
    first['results']['contrast']['2'][metric] = 0.125  # to see that it is not run again
    (out / 'robustness.json').write_text(json.dumps(first))
    status, err = tool('analysis/robustness', config, checkpoint, '--out', out, *SMALL)
    assert status == 0
    assert '2 evaluations were done before' in err
    found = read(out)
    assert set(found['results']) == {
        'clean',
        'gaussian_noise',
        'shot_noise',
        'impulse_noise',
        'contrast',
    }
    assert found['results']['contrast']['2'][metric] == 0.125
    values = [v[metric] for n, r in found['results'].items() if n != 'clean' for v in r.values()]
    assert len(values) == 8
    row = found['summary'][metric]
    assert row['mPC(8 of 75, not comparable)'] == pytest.approx(sum(values) / 8)
    clean = tmp_path / 'clean.json'
    arguments = ('--work-dir', tmp_path / 'v', '--out', clean, '--out-item', 'metrics')
    assert tool('test', config, checkpoint, *arguments)[0] == 0
    assert row['clean'] == pytest.approx(json.loads(clean.read_text())[metric])
    assert (out / 'curves.png').stat().st_size > 5000
    assert (out / 'heat_map.png').exists() == bool(row['clean'])


@either
def test_other_settings_are_not_mixed(tool, fails, model, tmp_path, monkeypatch):
    config, checkpoint, _ = model
    command = ('analysis/robustness', config, checkpoint, '--out', tmp_path / 'r')
    few = ('--corruptions', 'fog', '--severities', '1')
    given = []

    def record(cfg, to_rgb, seed, insert=corruption_study.insert_transform):
        given.append((to_rgb, seed))
        insert(cfg, to_rgb, seed)

    monkeypatch.setattr(corruption_study, 'insert_transform', record)
    assert tool(*command, *few)[0] == 0
    text = fails(*command, *few, '--to-rgb')
    assert 'results of another run (to_rgb differ); name another --out' in text
    assert 'results of another run (draw_seed differ)' in fails(*command, *few, '--draw-seed', 7)
    more = ('--to-rgb', '--draw-seed', 7, '--restart')
    assert tool(*command, *few, *more)[0] == 0
    settings = read(tmp_path / 'r')['settings']
    assert (settings['to_rgb'], settings['draw_seed']) == (True, 7)
    assert (given[0], given[-1]) == ((False, 0), (True, 7))


@either
def test_mistakes(fails, model, tmp_path):
    config, checkpoint, _ = model
    command = ('analysis/robustness', config, checkpoint, '--out', tmp_path / 'r')
    assert "no corruption or group 'snw'" in fails(*command, '--corruptions', 'snw')
    assert '--imagenet-r needs a classifier' in fails(*command, '--imagenet-r', tmp_path)
    text = fails('analysis/robustness', config, 'no.pth', '--out', tmp_path / 'r')
    assert 'checkpoint no.pth does not exist' in text
    options = ('--cfg-options', 'test_dataloader.dataset.pipeline.0.type=Resize')
    assert 'begins with Resize; expected a step that loads' in fails(*command, *options)
    (tmp_path / 'r').mkdir(exist_ok=True)
    (tmp_path / 'r' / 'robustness.json').write_text('{')
    assert 'is not a result of tools/analysis/robustness.py' in fails(*command)


CLASSIFIER = """
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=40, edge='short'),
            dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]
test_dataloader = dict(
    batch_size=100, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='hybrid_mm.ImageNetSketch', data_root='{root}/clean', pipeline=pipeline))
test_evaluator = dict(type='Accuracy', topk=(1, 5))
test_cfg = dict()
default_hooks = dict(logger=dict(type='LoggerHook', interval=100))
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='hybrid_mm.VAN', out_indices=(3,),
                  arch=dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], mlp_ratios=[2] * 4)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=16))
"""


@pytest.fixture
def classifier(tmp_path):
    """Config and random weights of a classifier, and grey images of all classes and of 200."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    roots = {'clean': 1000, 'c/contrast/3': 1000, 'a': 200}
    for name, number in roots.items():
        for i in range(number):
            folder = tmp_path / name / f'n{i:08d}'
            folder.mkdir(parents=True)
            size = 32 if name.startswith('c/') else 40
            Image.new('RGB', (size, size), (i % 250, i // 4, 90)).save(folder / '0.png')
    config = tmp_path / 'tiny_cls.py'
    config.write_text(CLASSIFIER.replace('{root}', str(tmp_path)))
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=None))
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    return config, tmp_path / 'weights.pth', tmp_path


def test_classifier_on_published_and_shifted_images(tool, fails, classifier, monkeypatch):
    config, checkpoint, root = classifier
    resized = []

    def record(cfg, resize, pipeline=corruption_study.plain_pipeline):
        resized.append(resize)
        return pipeline(cfg, resize)

    monkeypatch.setattr(corruption_study, 'plain_pipeline', record)
    command = ('analysis/robustness', config, checkpoint, '--corruptions', 'contrast')
    once = ('--severities', 3, '--out', root / 'r', '--imagenet-c', root / 'c')
    assert tool(*command, *once, '--imagenet-a', root / 'a')[0] == 0
    results = read(root / 'r')['results']
    assert set(results) == {'clean', 'contrast', 'imagenet-a'}
    # the published images are not cropped or corrupted again, and so give what the clean ones do
    assert results['contrast']['3'] == results['clean']['0']
    assert resized == [False, True]
    assert 0 <= results['imagenet-a']['0']['accuracy/top1'] <= 100
    text = fails(*command, '--severities', 2, '--out', root / 's', '--imagenet-c', root / 'c')
    assert 'contrast/2 does not exist' in text
    text = fails(*command, *once[:-2], '--restart', '--imagenet-r', root / 'clean')
    assert 'expected 200 folders, one per class' in text
