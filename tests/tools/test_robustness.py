"""tools/analysis/robustness.py: evaluation under corruption of a detector and a segmenter."""

import json

import pytest

SMALL = ('--corruptions', 'noise', 'contrast', '--severities', '2', '5')


@pytest.fixture(params=['det', 'seg'])
def model(request, tool, tmp_path):
    """Config of a task, a checkpoint of it, and the name of its metric."""
    config = request.getfixturevalue(f'{request.param}_config')
    assert tool('train', config, '--work-dir', tmp_path / 'w', '--no-validate')[0] == 0
    return (
        config,
        tmp_path / 'w' / 'iter_2.pth',
        dict(det='coco/bbox_mAP', seg='mIoU')[request.param],
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


def test_other_settings_are_not_mixed(tool, fails, model, tmp_path):
    config, checkpoint, _ = model
    command = ('analysis/robustness', config, checkpoint, '--out', tmp_path / 'r')
    few = ('--corruptions', 'fog', '--severities', '1')
    assert tool(*command, *few)[0] == 0
    text = fails(*command, *few, '--to-rgb')
    assert 'results of another run (to_rgb differ); name another --out' in text
    assert tool(*command, *few, '--to-rgb', '--restart')[0] == 0
    assert read(tmp_path / 'r')['settings']['to_rgb'] is True


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
    assert 'is no result of tools/analysis/robustness.py' in fails(*command)
