"""tools/export_onnx.py: a file with its metadata."""

import json

import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


def test_file_of_a_detector(tool, fails, det_config, tmp_path):
    out = tmp_path / 'x.onnx'
    status, err = tool('export_onnx', det_config, out, '--size', '64', '64', '--check')
    assert status == 0, err
    assert 'no checkpoint: the file gets random weights' in err
    model = onnx.load(out)
    names = [item.name for item in model.graph.output]
    assert names == [f'{n}_{i}' for n in ('cls_score', 'bbox_pred', 'centerness') for i in range(5)]
    said = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert said['mean'] == [0.0] * 3 and said['classes'] == ['square', 'disc', 'bar']
    text = fails('export_onnx', det_config, tmp_path / 'none.pth', out)
    assert 'none.pth does not exist' in text
