"""``hybrid_mm.testing`` itself: it passes what is right, and names what is wrong.

What it finds in the networks of this package is in ``tests/backbones/test_all.py``.
"""

import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hybrid_mm.backbones import VAN, BaseBackbone
from hybrid_mm.backbones.van import VANArch
from hybrid_mm.compat.torch_api import exports, is_autocast_enabled
from hybrid_mm.ops.local_attention import local_attention
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.testing import (
    BACKBONE_CHECKS,
    OPERATOR_CHECKS,
    ContractError,
    Expected,
    check_backbone,
    check_operator,
)
from hybrid_mm.testing.outcome import require_near, run_checks

SMALL = dict(arch=dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4))


@pytest.mark.parametrize(
    ('name', 'kwargs', 'skipped'),
    [
        ('mmdet.ResNet', dict(depth=18, base_channels=8), {'layer_ids'}),
        (
            'mmdet.SwinTransformer',
            # its dropped paths depend on the type, which an old torch makes another one
            dict(embed_dims=12, depths=(1,) * 4, num_heads=(1, 1, 2, 2), drop_path_rate=0.0),
            {'layer_ids', 'norm_eval'},
        ),
        (
            'mmpretrain.ConvNeXt',
            dict(
                arch=dict(depths=[1] * 4, channels=[8] * 4),
                out_indices=(0, 1, 2, 3),
                gap_before_final_norm=False,
            ),
            {'norm_eval'},
        ),
    ],
)
def test_networks_of_other_libraries(name, kwargs, skipped):
    report = check_backbone(name, **kwargs)
    ours = {
        'drop_path', 'bad_out_indices', 'bad_frozen_stages', 'weights_of_another_model',
        'weights_of_stages_that_are_not_there', 'image_channels',
    }  # fmt: skip
    slow = {'compile_eval', 'compile_training', 'export'}
    assert set(report.skipped()) == skipped | ours | slow
    assert [result.check for result in report.results] == list(BACKBONE_CHECKS)
    assert 'only subclasses of BaseBackbone' in report.skipped()['drop_path']
    assert 'slow=True' in str(report)


def test_vectors_are_no_maps():
    arch = dict(embed_dims=12, num_layers=2, num_heads=2, feedforward_channels=16)
    with pytest.raises(ContractError, match=r'any_size: .*expected a tuple of maps \(N, C, H, W\)'):
        check_backbone('mmpretrain.VisionTransformer', arch=arch, skip='copies')


class Net(nn.Module):
    """Two convolutions that can be broken."""

    def __init__(self, fault='', with_cp=False, out_indices=(0, 1), frozen_stages=-1):
        super().__init__()
        self.fault, self.with_cp, self.out_indices = fault, with_cp, out_indices
        self.first = nn.Conv2d(3, 4, 4, 4)
        self.second = nn.Conv2d(4, 8, 2, 2)
        self.unused = nn.Linear(2, 2) if fault == 'unused' else None
        self.scale = torch.ones(4, 1, 1) if fault == 'tensor' else None
        if fault == 'seed':
            self.first.weight.data.uniform_(generator=(own := torch.Generator()))
            self.first.weight.data.mul_(1 + own.seed() % 997)
        if fault == 'empty':
            self.second.bias.data.fill_(torch.nan)
        if frozen_stages >= 0 and fault != 'frozen':
            self.first.requires_grad_(False)

    def begin(self, x):
        return self.first(x).sigmoid().tanh()

    def forward(self, x):
        if self.fault == 'image':
            x.mul_(0.5)
        if self.with_cp and self.fault != 'no cp':
            a = checkpoint(self.begin, x, use_reentrant=False)
        else:
            a = self.begin(x)
        if self.fault == 'position':
            a = a + torch.arange(a.shape[-1])
        if self.fault == 'fails' and x.shape[2] > 64:
            raise IndexError('no\nrow')
        if self.fault == 'batch':
            a = a - a.mean(0)
        if self.fault == 'float':
            a = a.float().to(x.dtype)
        if self.fault == 'size' and x.shape[2] % 4:
            a = a[:, :, 1:]
        if self.fault == 'noise':
            a = a + torch.rand_like(a)
        if self.fault == 'detached':
            a = a + x.detach().mean()
        if self.fault == 'half' and is_autocast_enabled('cpu'):
            a = a * 1.2
        if self.fault == 'with_cp' and self.with_cp:
            a = a * 1.01
        if self.fault == 'layout':
            a = a.contiguous(memory_format=torch.channels_last)
        if self.fault == 'export' and exports():
            a = torch.fft.ifft2(torch.fft.fft2(a)).real
        b = self.second(a)
        maps = [a, b]
        if self.fault == 'indices':
            return (a, b)[: len(self.out_indices)]
        return tuple(maps[i] for i in self.out_indices)

    def get_layer_depth(self, name, prefix=''):
        name = name.removeprefix(prefix)
        last = 5 if self.fault == 'layers' else 2
        return ['first', 'second'].index(name.split('.')[0]) if 'neck' not in name else last, 3

    def __deepcopy__(self, memo):
        other = Net(self.fault)
        if self.fault != 'copy':
            other.load_state_dict(self.state_dict())
        return other


def test_a_class_that_is_registered_nowhere():
    report = check_backbone(Net)
    assert '@MODELS.register_module()' in report.skipped()['registered']
    assert 'norm_eval' in report.skipped()['norm_eval']


@pytest.mark.parametrize(
    ('fault', 'check', 'text'),
    [
        (
            'seed',
            'initial_values',
            r'initial value of first.weight, drawn again from the same seed',
        ),
        ('empty', 'initial_values', r'initial value of second.bias: expected finite numbers'),
        ('image', 'deterministic', 'the image after the network has seen it: expected equal'),
        ('batch', 'deterministic', 'map 0 of an image in a batch and on its own'),
        ('float', 'gradient_is_the_derivative', r'rounded .*: test_contract.py, line \d+, in for'),
        ('tensor', 'moves_to_a_device', r"which stay on the CPU: \['scale'\]; use self.register_b"),
        ('position', 'moves_to_a_device', r'aten.add.Tensor of tensors on different .*in forward'),
        ('fails', 'any_size', r'image of 128 x 128: IndexError: no row \(test_contract.py, line '),
        ('size', 'any_size', r'97 pixels at stride 4: expected 24 or 25, found 23'),
        ('layout', 'any_size', 'expected contiguous maps'),
        ('noise', 'deterministic', 'expected equal tensors, found differences up to'),
        ('detached', 'gradient_is_the_derivative', 'expected .* from differences, found'),
        ('half', 'autocast', 'expected a difference of at most 5e-02 of the norm, found'),
        ('with_cp', 'checkpointing', 'gradient of first.weight with with_cp and without'),
        ('no cp', 'checkpointing', r'expected fewer numbers to be kept .* found \d+ with and \d+'),
        ('indices', 'out_indices', r'out_indices=\(1,\): map of stage 1: expected equal'),
        ('frozen', 'frozen_stages', 'frozen_stages=1: expected frozen weights, found none'),
        ('layers', 'layer_ids', 'layer of a neck: expected 2, found 5'),
        ('export', 'exported_formulation', r"found \['aten::_fft_c2c"),
        ('unused', 'every_parameter_has_a_gradient', r"found none of \['unused.weight'"),
        ('copy', 'copies', r'copy.deepcopy: map 0: expected equal tensors'),
    ],
)
def test_faults_are_named(fault, check, text):
    check_backbone(Net, only=check)
    with pytest.raises(ContractError, match=f'^Net: 1 of 1 checks .*failed\n  {check}: .*{text}'):
        check_backbone(Net, only=check, fault=fault)


class Cropped(VAN):
    """A network of ours whose first map lacks a channel."""

    def returned_map(self, stage, state):
        return state if stage else state[:, :-1]


def test_all_faults_at_once():
    with pytest.raises(ContractError) as error:
        check_backbone(Cropped, only=['any_size', 'bad_out_indices', 'out_indices'], **SMALL)
    lines = str(error.value).splitlines()
    assert lines[0] == 'Cropped: 2 of 3 checks of the contract failed'
    assert lines[1].startswith('  any_size: image 32 x 32, training: batch and channels: expected')
    assert lines[2].startswith('  out_indices: ')


def test_one_mistake_is_told_once():
    with pytest.raises(ContractError) as error:
        check_backbone(Net, only=['any_size', 'copies', 'deterministic', 'autocast'], fault='fails')
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(ContractError) as error:
        check_operator(lambda x: None, torch.exp, [torch.rand(2)])
    lines = str(error.value).splitlines()
    assert lines[1].endswith('outputs of <lambda>: expected tensors, found NoneType')
    assert lines[2:] == [f'    for the same reason: {", ".join(OPERATOR_CHECKS[1:])}']


class Five(VAN):
    """A network of five stages, the first at stride 2."""

    map_strides = (2, 4, 8, 16, 32)

    def make_stage(self, stage):
        made = super().make_stage(stage)
        if not stage:
            made.embed.conv.stride = (2, 2)
        return made


def test_five_stages():
    arch = dict(embed_dims=[4] * 5, depths=[1, 2, 1, 1, 1], mlp_ratios=[2] * 5)
    for kwargs in ({}, dict(out_indices=(1, 4))):
        check_backbone(Five, arch=arch, only=['any_size', 'drop_path', 'layer_ids'], **kwargs)
    with pytest.raises(ContractError, match=r'stride 4: .*map_strides of Four says \(4, 8, 16, 32'):
        check_backbone(type('Four', (Five,), dict(map_strides=VAN.map_strides)), arch=arch)


class Shuffled(VAN):
    """A network with an embedding behind the blocks."""

    def finish(self):
        super().finish()
        self.stages[0].embed_more = nn.Linear(1, 1)


def test_layers_out_of_order():
    text = r'found layer 1 of stages.0.norm.bias before layer 0 of stages.0.embed_more.weight'
    with pytest.raises(ContractError, match=text):
        check_backbone(Shuffled, only='layer_ids', **SMALL)


@pytest.mark.parametrize(
    ('cls', 'error', 'text'),
    [
        ('hybrid_mm.VANN', ValueError, "no network 'hybrid_mm.VANN' .*did you mean hybrid_mm.VAN"),
        ('nowhere.Net', ValueError, "no network 'nowhere.Net'"),
        (Net(), TypeError, 'a class or its name, as .*, got an instance of Net'),
        (lambda: Net(), TypeError, 'got an instance of function'),
    ],
)
def test_what_is_no_network(cls, error, text):
    with pytest.raises(error, match=text):
        check_backbone(cls)


class Unfinished(BaseBackbone):
    """A network without stages, or without a method to make them."""

    arch_class, arch_zoo = VANArch, VAN.arch_zoo

    def __init__(self, arch='b0', build=False):
        super().__init__(arch)
        self.depths, self.stage_channels = [1], [8]
        if build:
            self.build()


def test_networks_that_are_not_finished():
    for build, text in (
        (False, r'self.build\(\) in the last'),
        (True, 'needs the method make_stage'),
    ):
        with pytest.raises(ContractError, match=text):
            check_backbone(Unfinished, only=['any_size', 'copies'], build=build)


def test_expectations():
    check_backbone(VAN, only='any_size', expected=Expected(rows=lambda n, s: -(-n // s)), **SMALL)
    for wrong, text in (
        (Expected(rows=lambda n, s: n // s), '97 pixels at stride 4: expected 24, found 25'),
        (Expected(strides=(4, 8, 16, 16)), 'map_strides: expected'),
        (Expected(stages=3), 'default of out_indices'),
    ):
        with pytest.raises(ContractError, match=text):
            check_backbone(VAN, only='any_size', expected=wrong, **SMALL)
    rates = Expected(drop_path_rates=lambda model, rate: {'stages.0.blocks.0': rate})
    with pytest.raises(ContractError, match='expected in one of'):
        check_backbone(VAN, only='drop_path', expected=rates, **SMALL)


def test_names_of_checks():
    with pytest.raises(ValueError, match="no check 'any_sizes'; did you mean any_size"):
        check_backbone(Net, only='any_sizes')
    with pytest.raises(ValueError, match='known are'):
        check_operator(torch.exp, torch.exp, [torch.rand(2)], skip=['zzz'])
    assert check_backbone(Net, skip=BACKBONE_CHECKS).skipped() == dict.fromkeys(
        BACKBONE_CHECKS, 'by argument'
    )


def test_a_registered_class():
    assert not check_backbone(VAN, only='registered', **SMALL).skipped()


def test_what_is_slow_runs_if_it_is_named():
    ran = []
    checks = dict(quick=lambda net: ran.append('quick'), slow=lambda net: ran.append('slow'))
    report = run_checks('x', checks, None, (), (), dict(slow='takes long'))
    assert (report.skipped(), ran) == (dict(slow='takes long'), ['quick'])
    assert not run_checks('x', checks, None, 'slow', (), dict(slow='takes long')).skipped()
    assert ran == ['quick', 'slow']


def test_nan_is_never_near():
    ones = torch.ones(2)
    for pair in ((ones * torch.nan, ones), (ones, ones * torch.nan)):
        with pytest.raises(ContractError, match='x: expected a difference of at most'):
            require_near(*pair, 0.1, 'x')


# ---------------------------------------------------------------- operators


def softplus(x, weight, power=2):
    return (x.exp() + 1).log() * weight**power


def fast_softplus(x, weight, power=2):
    return nn.functional.softplus(x) * weight**power


INPUTS = dict(x=torch.randn(2, 3, 5), weight=torch.rand(3, 1) + 0.5, power=3)


def test_a_right_operator():
    report = check_operator(fast_softplus, softplus, INPUTS)
    assert [result.check for result in report.results] == list(OPERATOR_CHECKS)
    assert not report.skipped()
    by_place = check_operator(fast_softplus, softplus, [*INPUTS.values()], dtypes=())
    assert list(by_place.skipped()) == ['dtypes']


class Cube(torch.autograd.Function):
    """x^3 with a gradient for dense memory, or a wrong one."""

    @staticmethod
    def forward(ctx, x, fault):
        ctx.save_for_backward(x)
        ctx.fault = fault
        return x**3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        if ctx.fault == 'layout':  # reads memory whatever the strides say
            dy = torch.as_strided(dy, x.shape, x.contiguous().stride())
        return (2 if ctx.fault == 'gradient' else 3) * x**2 * dy, None


def broken(fault):
    def cube(x):
        if fault == 'value':
            return x**3 + 1e-6
        if fault == 'empty' and not len(x):
            return x.new_zeros(1, *x.shape[1:]) * x.sum()
        if fault == 'one' and len(x) == 1:
            return x**2
        if fault == 'detached':
            return x.detach() ** 3
        if fault == 'type':
            return Cube.apply(x.double(), '')
        if fault == 'in place':
            x.data.mul_(1.5)
        return Cube.apply(x, fault)

    return cube


@pytest.mark.parametrize(
    ('fault', 'check', 'text'),
    [
        ('value', 'values_and_gradients', 'float64, output 0: expected a difference of at most'),
        ('gradient', 'values_and_gradients', 'gradient of argument 0: expected'),
        ('gradient', 'gradcheck', 'gradient of argument 0, gradcheck: Jacobian mismatch'),
        ('layout', 'strides', r'strides \(axes in reverse order\), gradient of argument 0'),
        ('one', 'one_image', 'batch of one, output 0: expected a difference'),
        ('detached', 'strides', 'outputs of cube: expected to depend on an input, found no'),
        ('empty', 'empty_batch', r'shape of output 0: expected \(0, 3, 5\), found \(1, 3, 5\)'),
        ('type', 'dtypes', 'type of output 0: expected torch.float32, found torch.float64'),
        ('in place', 'pure', 'argument 0 after the call: expected equal tensors'),
    ],
)
def test_broken_operators(fault, check, text):
    x = [torch.randn(2, 3, 5)]
    check_operator(broken(''), lambda x: x**3, x, only=check)
    with pytest.raises(ContractError, match=text):
        check_operator(broken(fault), lambda x: x**3, x, only=check)


def test_arguments_of_check_operator():
    x, pair = torch.rand(2, 3), [torch.rand(2, 3), torch.rand(2, 3)]
    for inputs, kwargs, text in (
        (x, {}, 'got a tensor'),
        ([x], dict(batched='q'), 'batched names q, but the inputs are 0'),
        ([x], dict(dtypes=['float16']), "types of torch, as torch.float16, got 'float16'"),
    ):
        with pytest.raises(ValueError, match=text):
            check_operator(torch.exp, torch.exp, inputs, **kwargs)
    with pytest.raises(ContractError, match=r'the formula fails .* argument 0, and of no'):
        check_operator(torch.dot, torch.dot, [x[0], x[1]], only='one_image')
    for batched in ((0, 1), ('0', '1'), '01'):
        check_operator(torch.mul, torch.mul, pair, batched=batched, only='one_image')
    check_operator(torch.exp, torch.exp, [x], batched=0, only='one_image')


OURS = {
    'local_attention': (
        functools.partial(local_attention, window=3),
        dict(zip('qkv', torch.randn(3, 2, 2, 5, 6, 4), strict=True)),
        'qkv',
    ),
    'mixed_shift': (
        mixed_shift,
        dict(
            x=torch.randn(2, 3, 4, 5, 6),
            fc=torch.randn(5, 3),
            bias=torch.randn(5),
            weight=torch.randn(8, 5, 3, 3),
        ),
        'x',
    ),
}


@pytest.mark.parametrize('name', OURS)
def test_operators_of_ours(name):
    function, inputs, batched = OURS[name]
    fast, plain = (functools.partial(function, impl=impl) for impl in ('tiled', 'reference'))
    assert not check_operator(fast, plain, inputs, batched=batched).skipped()
