"""Files in 8 bits."""

import json

import numpy as np
import pytest

from hybrid_mm.commands.quantize_onnx import agreement, refound, spread
from hybrid_mm.errors import UserError
from hybrid_mm.export.quantise import quantisable, quantise

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


def network(path=None, **more):
    """Convolutions, a product of activations, a linear layer and the last one: x (1, 3, 8, 8)."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    weights = dict(
        a=(8, 3, 3, 3), b=(8, 8, 3, 3), c=(8, 8), d=(8, 4), bias=(8,)
    )  # fmt: skip
    nodes = [
        ('Conv', ['x', 'a', 'bias'], 'first', dict(kernel_shape=[3, 3])),
        ('Relu', ['first'], 'r', {}),
        ('Conv', ['r', 'b', 'bias'], 'second', dict(kernel_shape=[3, 3])),
        ('Relu', ['second'], 's', {}),
        ('MatMul', ['s', 's'], 'product', {}),
        ('Reshape', ['product', 'shape'], 'tokens', {}),
        ('Gemm', ['tokens', 'c', 'bias'], 'linear', dict(transB=1)),
        ('Sigmoid', ['linear'], 't', {}),
        ('MatMul', ['t', 'd'], 'last', {}),
        ('Softmax', ['last'], 'scores', {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], name=o, **settings) for op, i, o, settings in nodes],
        'graph',
        [helper.make_tensor_value_info('x', real, (1, 3, 8, 8))],
        [helper.make_tensor_value_info('scores', real, None)],
        [
            onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32) / 4, name)
            for name, shape in weights.items()
        ]
        + [onnx.numpy_helper.from_array(np.array([-1, 8]), 'shape')],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    helper.set_model_props(proto, {'classes': json.dumps(['a', 'b', 'c', 'd']), **more})
    if path is not None:
        onnx.save(proto, str(path))
    return proto


def feeds(number=4):
    rng = np.random.default_rng(1)
    return [{'x': rng.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(number)]


def scores(path, feed):
    return onnxruntime.InferenceSession(str(path)).run(None, feed)[0]


def test_first_and_last_layers_and_products_of_activations_stay_in_float():
    assert quantisable(network()) == (['first', 'second', 'linear', 'last'], ['first', 'last'])


def test_layers_before_a_loop_are_not_the_last():
    proto = network()
    inner = onnx.helper.make_node('MatMul', ['last', 'w'], ['y'], name='inner')
    body = onnx.helper.make_graph([inner], 'body', [], [])
    proto.graph.node.append(onnx.helper.make_node('If', ['q'], ['z'], name='if', then_branch=body))
    proto.graph.node.append(onnx.helper.make_node('MatMul', ['z', 'd'], ['out'], name='out'))
    assert quantisable(proto)[1] == ['first', 'out']


@pytest.mark.parametrize('op', ['TopK', 'NonMaxSuppression', 'Less', 'RoiAlign'])
def test_layers_that_choose_what_others_look_at_are_among_the_last(op):
    proto = network()
    inputs = ['r', 'last', 'batch'] if op == 'RoiAlign' else ['last', 'number']
    proto.graph.node.extend(
        onnx.helper.make_node(kind, i, [o], name=o)
        for kind, i, o in ((op, inputs, 'chosen'), ('Conv', ['chosen', 'b'], 'mask'))
    )
    assert quantisable(proto)[1] == ['first', 'last', 'mask']
    proto.graph.node[-2].op_type = 'Add'
    assert quantisable(proto)[1] == ['first', 'mask']


@pytest.mark.parametrize('dynamic', [False, True])
def test_files(tmp_path, dynamic):
    source, target = tmp_path / 'x.onnx', tmp_path / 'y.onnx'
    network(source)
    assert quantise(source, target, None if dynamic else feeds()) == (1 if dynamic else 2,) + (
        (2,) if dynamic else (4,)
    )
    proto = onnx.load(target)
    said = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert said['classes'] == ['a', 'b', 'c', 'd'] and said['quantised']['weights'] == 'int8'
    kinds = [node.op_type for node in proto.graph.node]
    assert ('DynamicQuantizeLinear' in kinds) is dynamic
    assert ('QuantizeLinear' in kinds) is not dynamic
    # per channel: as many scales as outputs; what stays in float has its weights
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}
    assert stored['a'].dtype == stored['d'].dtype == np.float32
    assert any(v.shape == (8,) and k.startswith('c') and 'scale' in k for k, v in stored.items())
    assert ('b' in stored) is dynamic and 'c' not in stored
    assert sum(v.dtype == np.int8 and v.ndim > 1 for v in stored.values()) == (1 if dynamic else 2)
    feed = feeds()[0]
    expected, found = scores(source, feed), scores(target, feed)
    assert 0 < np.abs(expected - found).max() < 0.02
    with pytest.raises(UserError, match=r'y.onnx is quantised; start from the file'):
        quantise(target, tmp_path / 'z.onnx', feeds())


def test_files_without_such_layers(tmp_path):
    proto = network()
    del proto.graph.node[5:]
    proto.graph.output[0].name = 'product'
    onnx.save(proto, str(tmp_path / 'x.onnx'))
    with pytest.raises(UserError, match=r'no linear layers to quantise: 0 with constant weights'):
        quantise(tmp_path / 'x.onnx', tmp_path / 'y.onnx', None)
    with pytest.raises(UserError, match=r'no layers to quantise: 2 with constant'):
        quantise(tmp_path / 'x.onnx', tmp_path / 'y.onnx', feeds())


def test_agreement():
    a, b = np.array([[[0, 1], [2, 2]]]), np.array([[[0, 1], [2, 0]]])
    text = agreement('segmentation', [dict(label_map=a)] * 2, [dict(label_map=b)] * 2)
    assert text == '75.0 % of the pixels keep their class'
    a, b = np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([[0.6, 0.4], [0.4, 0.6]])
    text = agreement('classification', [dict(scores=a)], [dict(scores=b)])
    assert text == '50.0 % keep their class'
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [0, 0, 10, 10.0]])
    one = dict(boxes=boxes, scores=np.array([0.9, 0.5, 0.4, 0.1]), labels=np.array([0, 1, 1, -1]))
    assert refound(one, one).tolist() == [True] * 3
    moved = dict(one, boxes=boxes + np.array([[1], [8], [0], [0]]), labels=np.array([0, 1, 0, -1]))
    assert refound(one, moved).tolist() == [True, False, False]
    assert refound(one, dict(one, scores=one['scores'] / 2)).tolist() == [True, True, True]
    assert refound(one, dict(one, scores=one['scores'] / 5)).tolist() == [False] * 3
    batch = {name: value[None] for name, value in one.items()}
    other = {name: value[None] for name, value in moved.items()}
    assert agreement('detection', [batch], [other]).startswith('33.3 % of 3 objects')
    empty = dict(batch, scores=batch['scores'] * 0)
    assert agreement('detection', [empty], [other]).startswith('no objects')


def test_images_are_drawn_from_all_of_a_folder():
    assert spread(list(range(5)), 8) == list(range(5))
    assert spread(list(range(101)), 5) == [0, 25, 50, 75, 100]
