"""Locally enhanced self-attention: stored outputs of the official code, batch statistics, sizes."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.convolution.deform_conv import DeformConv2d

DATA = Path(__file__).parents[1] / 'golden' / 'data' / 'lesa'
NAMES = {
    'qkv_transform': 'qkv', 'bn_qkv': 'norm_qkv', 'bn_similarity': 'norm_logits',
    'bn_output': 'norm_context', 'x_transform.0': 'local', 'x_transform.1': 'mix',
    'bn_x': 'norm_local', 'reasoning.1': 'reason', 'reasoning.2': 'norm_reason',
    'projection.0': 'project', 'projection.1': 'norm_project', 'relative': 'rel',
    'rel_height': 'rel_h', 'rel_width': 'rel_w',
}  # fmt: skip


def _rename(name: str) -> str:
    old = next(old for old in NAMES if name == old or name.startswith(old + '.'))
    return NAMES[old] + name[len(old) :]


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
@pytest.mark.parametrize('case', ['lesa_op_cls', 'lesa_op_det_qr_dcn', 'lesa_op_det_qr_stride2'])
def test_official_outputs(case, impl):
    config = json.loads((DATA / f'{case}.json').read_text())['config']
    tensors = load_file(DATA / f'{case}.safetensors')
    weights = {k[7:]: v for k, v in tensors.items() if k.startswith('weight/')}
    weights.pop('flatten_index', None)
    positions = {'classification': 'flat', 'detection_qr': 'axial'}[config['lesa']['pe_type']]
    size = (config['kernel_size'],) * 2
    layer = LESA2d(
        config['in_planes'],
        size,
        config['lesa']['groups'],
        config['stride'],
        positions,
        config['dcn'] is not None,
        impl,
    )
    layer.load_state_dict({_rename(k): v for k, v in weights.items()})
    layer.to(tensors['input'].dtype).eval()
    x = tensors['input'].requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, tensors['output/0'], rtol=1e-4, atol=1e-5)
    out.backward(tensors['cotangent/0'])
    torch.testing.assert_close(x.grad, tensors['grad/input'], rtol=1e-3, atol=1e-4)


def test_batch_statistics_are_those_of_the_logits():
    torch.manual_seed(0)
    layer = LESA2d(16, (4, 5), groups=2).double()
    q, k = torch.randn(2, 3, 2, 4, 5, 4, dtype=torch.float64)
    rel_h, rel_w = layer.rel_h.detach(), layer.rel_w.detach()
    y, x = torch.arange(4), torch.arange(5)
    qk = torch.einsum('ngxyc,nguvc->ngxyuv', q, k)
    rows = torch.einsum('ngxyc,xuc->ngxyu', q, rel_h[y - y[:, None] + 3])
    columns = torch.einsum('ngxyc,yvc->ngxyv', q, rel_w[x - x[:, None] + 4])
    logits = torch.cat([qk, rows[..., None] + columns[..., None, :]], 1).flatten(4).flatten(2, 3)
    oracle = torch.nn.BatchNorm2d(4).double()
    oracle(logits)
    factors = layer._affine(q, k, rel_h, rel_w)
    var = logits.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(factors.flatten(), torch.rsqrt(var + 1e-5))
    torch.testing.assert_close(layer.norm_logits.running_mean, oracle.running_mean)
    torch.testing.assert_close(layer.norm_logits.running_var, oracle.running_var)
    assert layer.norm_logits.num_batches_tracked == 1


def test_axial_tables_follow_the_map_and_flat_ones_are_bound():
    layer = LESA2d(16, (6, 6), groups=2).eval()
    for size in ((6, 6), (5, 9), (13, 4)):
        assert layer(torch.rand(1, 16, *size)).shape == (1, 16, *size)
    layer = LESA2d(16, (6, 6), groups=2, positions='flat').eval()
    with pytest.raises(ValueError, match=r'bound to maps of \(6, 6\), got \(5, 6\)'):
        layer(torch.rand(1, 16, 5, 6))


def test_training_reaches_every_parameter():
    layer = LESA2d(16, (6, 6), groups=2, deformable=True)
    F.mse_loss(layer(torch.rand(2, 16, 7, 6)), torch.rand(2, 16, 7, 6)).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        # softmax drops what the norm of the logits adds
        assert name == 'norm_logits.bias' or parameter.grad.abs().sum() > 0, name


def test_settings_are_checked():
    with pytest.raises(ValueError, match='groups must divide'):
        LESA2d(12, (4, 4), groups=4)
    with pytest.raises(ValueError, match='positions must be one of'):
        LESA2d(16, (4, 4), groups=2, positions='rows')


@pytest.mark.parametrize('positions', ['axial', 'flat'])
def test_stride_pools_also_odd_sizes(positions):
    """Cells at the border have the pixels that there are."""
    torch.manual_seed(0)
    plain, strided = (
        LESA2d(16, (7, 9), groups=2, stride=stride, positions=positions).double().eval()
        for stride in (1, 2)
    )
    strided.load_state_dict(plain.state_dict())
    x = torch.randn(2, 16, 7, 9, dtype=torch.float64)
    full, found = plain(x), strided(x)
    assert found.shape == (2, 16, 4, 5)
    for i in range(4):
        for j in range(5):
            cell = full[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
            torch.testing.assert_close(found[..., i, j], cell)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_offsets_of_a_diverged_network(value):
    """torchvision's kernel would read beyond the map: the process would end without a message."""
    layer = DeformConv2d(8)
    x = torch.rand(1, 8, 6, 7, requires_grad=True)
    with torch.no_grad():
        layer.conv_offset.bias[3] = value
    out = layer(x)
    out.sum().backward()
    assert out.isnan().all() == math.isnan(value)
    assert out.isfinite().all() != math.isnan(value)
