"""tools/analysis/compare.py: the table in all its forms, metrics, and mistakes."""

import csv
import json

ARCH = 'dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2])'
TINY = f"dict(type='hybrid_mm.VAN', arch={ARCH})"
NONE = "dict(type='hybrid_mm.NoSuchNet')"
QUICK = '--shape', 64, '--rounds', 2, '--device', 'cpu'


def test_one_table_of_detectors_and_backbones(tool, det_config, tmp_path):
    """What a user does: the table in four forms; the model that fails does not stop the others."""
    out = tmp_path / 'c'
    models = det_config, NONE, TINY
    flags = (*QUICK, '--out', out, '--labels', 'det', 'none', 'net')
    status, err = tool('analysis/compare', *models, *flags)
    assert status == 1 and 'several tasks' in err
    content = json.loads((out / 'comparison.json').read_text())
    det, none, net = content['models']
    assert [m['task'] for m in (det, net)] == ['detection', 'backbone']
    assert "'hybrid_mm.NoSuchNet' is not a registered model" in none['errors']['build']
    for model in (det, net):
        assert not model['errors'] and model['rounds'] == 2 and model['size'] == [64, 64]
        assert model['forward_ms'] > 0 and model['training_ms'] > 0 and model['macs'] > 0
        assert model['training_bytes'] > model['forward_bytes'] > 4 * model['params'] > 0
    assert det['forward_ratio'] == det['training_ratio'] == 1
    text = (out / 'comparison.md').read_text()
    assert '| none | - | - |' in text and 'none: type ' in text
    assert '2 images in a batch, the same noise of 64 x 64 for all, float32, cpu' in text
    with (out / 'comparison.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['label'] for row in rows] == ['det', 'none', 'net']
    assert float(rows[2]['forward_ms']) == net['forward_ms'] and 'NoSuchNet' in rows[1]['error']
    assert (out / 'comparison.png').stat().st_size > 5000


def test_metrics_of_a_test_and_of_logs(tool, det_config, work_dir_of, tmp_path, capsys):
    checkpoint = work_dir_of('det') / 'iter_2.pth'
    flags = *QUICK[:-4], '--rounds', 0, '--out', tmp_path / 'c', '--labels', 'a', 'b'
    models = det_config, det_config, *flags
    run = *models, '--amp', '--checkpoints', checkpoint, '-', '--test'
    assert tool('analysis/compare', *run)[0] == 0
    a, b = json.loads((tmp_path / 'c/comparison.json').read_text())['models']
    assert a['weights'] == str(checkpoint) and 'coco/bbox_mAP' in a['metrics']
    assert b['weights'] == 'random weights' and not b['metrics'] and b['macs'] == a['macs'] > 0
    log = tmp_path / 'm.json'
    log.write_text('{"coco/bbox_mAP": 0.25}')
    assert tool('analysis/compare', *models, '--logs', log, '-')[0] == 0
    a, b = json.loads((tmp_path / 'c/comparison.json').read_text())['models']
    assert (a['metrics'], b['metrics']) == ({'coco/bbox_mAP': 0.25}, {})
    assert f'the test in {log}' in a['metrics_from']


def test_mistakes(fails, tool, det_config, seg_config, work_dir_of, tmp_path):
    """Said in a line before anything is measured, or in the line of the model."""

    def error(*arguments):
        return fails('analysis/compare', *arguments, *QUICK, '--out', tmp_path / 'c')

    assert '2 models need as many, got 1' in error(TINY, NONE, '--checkpoints', 'x.pth')
    assert '--logs: 2 models need as many, got 1' in error(TINY, NONE, '--logs', 'x')
    assert 'several models are called' in error(TINY, TINY)
    assert 'config no.py does not exist' in error(TINY, 'no.py')
    assert 'checkpoint no.pth does not exist' in error(TINY, '--checkpoints', 'no.pth')
    assert '--amp float16 needs a GPU' in error(TINY, '--amp', 'float16')
    log = work_dir_of('det')
    text = error(det_config, '--logs', log)
    assert f'{log} has no metrics, only ' in text and 'was it validated?' in text
    assert not (tmp_path / 'c').exists()
    other = work_dir_of('seg') / 'iter_2.pth'
    flags = *QUICK, '--rounds', 0, '--out', tmp_path / 'c', '--checkpoints', other, other
    assert tool('analysis/compare', det_config, seg_config, *flags)[0] == 1
    first, second = json.loads((tmp_path / 'c/comparison.json').read_text())['models']
    assert 'is not one of this model (FCOS)' in first['errors']['build']
    assert '\n' not in first['errors']['build'] and not second['errors'] and second['macs']
