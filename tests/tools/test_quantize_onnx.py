"""tools/quantize_onnx.py: a file in 8 bits, as usable as before."""

import json

import numpy as np
import pytest

from hybrid_mm.apis import Predictor

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

LAYERS = """p = Transpose<perm=[0, 3, 1, 2]>(x)
  a = Conv(p, w)
  b = Relu(a)
  c = Conv(b, w)
  d = Relu(c)
  e = Conv(d, w)
  place = ArgMax<axis=1, keepdims=0>(e)"""
WEIGHT = ', float[3,3,1,1] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}>'


@pytest.fixture
def model(onnx_file):
    """A segmenter whose classes are the channels of highest value, by three convolutions."""
    argmax = 'place = ArgMax<axis=3, keepdims=0>(x)'
    return onnx_file('segmentation', (argmax, LAYERS), ('{64,64}>', '{64,64}' + WEIGHT))


def test_file(tool, fails, model, tiny_coco, tmp_path):
    out, photos = tmp_path / 'int8.onnx', tiny_coco / 'val'
    status, err = tool('quantize_onnx', model, out, photos, '--number', 2)
    assert status == 0, err
    proto = onnx.load(out)
    said = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert said['quantised']['layers'] == 1 and said['task'] == 'segmentation'
    assert [node.op_type for node in proto.graph.node].count('Conv') == 3
    session = onnxruntime.InferenceSession(str(out))
    assert [item.name for item in session.get_overridable_initializers()] == ['size']
    pairs = zip(Predictor(model)(photos), Predictor(out)(photos), strict=True)
    same = [np.mean(a.label_map == b.label_map) for a, b in pairs]
    assert len(same) == 4 and min(same) > 0.97
    assert 'int8.onnx is quantised; start from' in fails('quantize_onnx', out, model, photos)
    text = fails('quantize_onnx', model, tmp_path / 'd.onnx', photos, '--dynamic')
    assert 'has no linear layers to quantise' in text and not (tmp_path / 'd.onnx').exists()
    assert 'none does not exist' in fails('quantize_onnx', model, out, tmp_path / 'none')
