"""tools/export_onnx.py: a file with its metadata."""

import json

import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


def test_file_of_a_detector(tool, fails, det_config, tmp_path):
    out = tmp_path / 'x.onnx'
    status, err = tool(
        'export_onnx', det_config, out, '--raw', '--fixed', '--size', 64, 64, '--check'
    )
    assert status == 0, err
    assert 'no checkpoint: the file gets random weights' in err
    model = onnx.load(out)
    names = [item.name for item in model.graph.output]
    assert names == [f'{n}_{i}' for n in ('cls_score', 'bbox_pred', 'centerness') for i in range(5)]
    said = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert said['mean'] == [0.0] * 3 and said['classes'] == ['square', 'disc', 'bar']
    text = fails('export_onnx', det_config, tmp_path / 'none.pth', out)
    assert 'none.pth does not exist' in text


def test_file_of_a_segmenter(tool, seg_config, work_dir_of, tmp_path):
    """Compared with PyTorch; a program finds in the file all that it needs."""
    out, checkpoint = tmp_path / 'x.onnx', work_dir_of('seg') / 'iter_2.pth'
    flags = ('--fixed', '--size', 64, 64, '--check')
    status, err = tool('export_onnx', seg_config, checkpoint, out, *flags)
    assert status == 0, err
    assert 'image, size -> label_map; differs from PyTorch by' in tool.out + err
    model = onnx.load(out)
    said = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert said['task'] == 'segmentation' and said['classes'] == ['square', 'disc', 'bar']
    assert said['palette'] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert said['input'] == dict(
        name='image', dtype='uint8', layout='NHWC', channels=3, order='RGB', largest=255
    )
    assert said['test_pipeline'] == [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    assert said['resize']['kind'] == 'none' and said['optional_inputs'] == {'size': [0, 0]}
    assert said['opset'] == model.opset_import[0].version >= 18
    assert not (tmp_path / 'x.onnx.data').exists()
