"""Norms and parallel kernels that are folded before a file is written."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_mm.export.folding import fold_norms, merged
from hybrid_mm.zoo.families import build

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


def graph_of(nodes, outputs, **constants):
    """A graph from x (2, 6, 5, 5), or (2, 6), to outputs."""
    helper = onnx.helper
    rng = np.random.default_rng(0)
    constants |= {name: rng.uniform(0.5, 2, 6).astype(np.float32) for name in ('s', 'b', 'm', 'v')}
    shape = constants.pop('shape', (2, 6, 5, 5))
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, i.split(), [o], **settings) for op, i, o, settings in nodes],
        'graph',
        [helper.make_tensor_value_info('x', real, shape)],
        [helper.make_tensor_value_info(name, real, None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)


def results(proto):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    shape = [item.dim_value for item in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    return session.run(None, {'x': x})


def values(*shape):
    return np.random.default_rng(2).standard_normal(shape, np.float32)


NORM = ('BatchNormalization', 'x s b m v', 'y', dict(epsilon=1e-3))
ONE = ('Conv', 'y w', 'z', dict(kernel_shape=[1, 1]))
GROUPS = ('Conv', 'y w3 c', 'u', dict(kernel_shape=[3, 3], group=2))
PADDED = ('Conv', 'y w3 c', 'u', dict(kernel_shape=[3, 3], group=2, pads=[1, 1, 1, 1]))
SHARED = ('Conv', 'x w', 'u', dict(kernel_shape=[1, 1]))
W = dict(w=values(4, 6, 1, 1), w3=values(4, 3, 3, 3), c=values(4))


@pytest.mark.parametrize(
    ('nodes', 'outputs', 'folded'),
    [
        ([NORM, ONE], ['z'], 1),
        ([NORM, GROUPS], ['u'], 1),
        ([NORM, ONE, GROUPS], ['z', 'u'], 1),
        ([NORM, ONE, SHARED], ['z', 'u'], 1),  # the other user keeps the weights that it had
        ([NORM, PADDED], ['u'], 0),
        ([NORM, ONE, PADDED], ['z', 'u'], 0),
        ([NORM, ONE], ['z', 'y'], 0),  # an output of the graph
        ([NORM, ONE, ('Relu', 'y', 'u', {})], ['z', 'u'], 0),
    ],
)
def test_norms_before_convolutions(nodes, outputs, folded):
    proto = graph_of(nodes, outputs, **W)
    expected = results(proto)
    assert fold_norms(proto) == folded
    left = [node.op_type for node in proto.graph.node]
    assert left.count('BatchNormalization') == 1 - folded
    used = {name for node in proto.graph.node for name in node.input}
    assert {item.name for item in proto.graph.initializer} == used - {'x', 'y'}
    for a, b in zip(results(proto), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize('turned', [0, 1])
@pytest.mark.parametrize('biased', [0, 1])
def test_norms_before_matrices(turned, biased):
    weight = values(4, 6) if turned else values(6, 4)
    inputs = 'y w c' if biased else 'y w'
    nodes = [NORM, ('Gemm', inputs, 'z', dict(transB=turned))]
    proto = graph_of(nodes, ['z'], shape=(2, 6), w=weight, c=values(4))
    (expected,) = results(proto)
    assert fold_norms(proto) == 1
    np.testing.assert_allclose(results(proto)[0], expected, rtol=1e-5, atol=1e-5)
    scaled = [NORM, ('Gemm', 'y w', 'z', dict(alpha=2.0, transB=turned))]
    assert fold_norms(graph_of(scaled, ['z'], shape=(2, 6), w=weight)) == 0


def test_weights_that_are_inputs_stay():
    proto = graph_of([NORM, ONE], ['z'], **W)
    weight = onnx.helper.make_tensor_value_info('w', onnx.TensorProto.FLOAT, (4, 6, 1, 1))
    proto.graph.input.append(weight)
    assert fold_norms(proto) == 0
    assert 'w' in {item.name for item in proto.graph.initializer}


KERNELS = dict(kernel_sizes=[31, 13, 7, 5], small_kernel=5)
DEPTHS, WIDTHS = [1] * 4, [8] * 4
CONVNEXT = dict(depths=DEPTHS, dims=WIDTHS)
SMALL = {
    'RepLKNet': dict(arch=dict(depths=DEPTHS, channels=WIDTHS, dw_ratio=1.0, **KERNELS)),
    'SLaK': dict(arch=CONVNEXT, kernel_sizes=[31, 13, 7, 3]),
    'PeLK': dict(arch=CONVNEXT, layer_scale=1.0),
    'LeViT': dict(
        arch=dict(
            embed_dims=[16, 20, 24],
            key_dims=[4, 4, 6],
            heads=[2, 3, 2],
            depths=[2, 1, 1],
            mlp_ratios=[2] * 3,
            value_ratios=[2, 2, 3],
            shrink_heads=[None, 4, 3],
            shrink_key_dims=[None, 4, 5],
            shrink_value_ratios=[None, 4, 2],
            shrink_mlp_ratios=[None, 2, 3],
        )
    ),
}


def network(name):
    return build(dict(type=f'hybrid_mm.{name}', **copy.deepcopy(SMALL[name])))


def randomised(model):
    """The model in eval mode with statistics, scales and shifts that are not the initial ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-1, 1)
    return model.eval()


@pytest.mark.parametrize('name', SMALL)
def test_copies_with_merged_kernels(name):
    model = randomised(network(name))
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    changed = merged(nn.ModuleDict(dict(backbone=model, head=nn.BatchNorm2d(4))).eval())['backbone']
    kinds = [type(module).__name__ for module in changed.modules()]
    assert kinds.count('BatchNorm2d') < sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    with torch.no_grad():
        for a, b in zip(changed(x), model(x), strict=True):
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_what_cannot_be_merged_stays():
    model = randomised(network('LeViT'))
    next(m for m in model.modules() if isinstance(m, nn.Linear)).register_forward_hook(print)
    assert merged(model) is model
    plain = nn.Conv2d(3, 3, 1)
    assert merged(plain) is plain
