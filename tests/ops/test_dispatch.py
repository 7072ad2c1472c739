"""One vocabulary for algorithms, which a user can set for all operators at once."""

import pytest
import torch

from hybrid_mm.errors import UserError
from hybrid_mm.layers import PairwiseAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.depthwise_convolution import depthwise_convolution
from hybrid_mm.ops.dispatch import ALGORITHMS, check_impl, choices, chosen_impl, default_impl
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.ops.grid_convolution import fused, grid_convolution
from hybrid_mm.ops.kernels import INTERPRET_VARIABLE
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.local_attention import local_attention, partition_attention
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.ops.separable_attention import separable_attention


def test_the_environment_is_read_after_a_compilation(monkeypatch):
    """Old releases of Dynamo store what a constant function returns among the globals."""
    compiled = torch.compile(chosen_impl, backend='eager')  # a global of its own module, if any
    assert compiled('auto', 'grid_convolution') == chosen_impl('auto', 'grid_convolution') == 'auto'
    monkeypatch.setenv('HYBRID_MM_IMPL', 'fft')
    assert chosen_impl('auto', 'grid_convolution') == 'fft'


def test_names_of_an_operator():
    assert choices('grid_convolution') == ('auto', 'reference', 'bmm', 'fft', 'fused', 'triton')
    assert choices('local_attention', 'mixed_shift') == ('auto', 'reference', 'tiled')
    for operator in ALGORITHMS:
        for impl in choices(operator):
            check_impl(impl, operator)
    expected = "impl must be one of auto, reference, tiled, convolution for mixed_shift, got 'fft'"
    with pytest.raises(ValueError, match=expected):
        check_impl('fft', 'mixed_shift')
    with pytest.raises(ValueError, match='for local_attention and mixed_shift'):
        check_impl('measured', 'local_attention', 'mixed_shift')


def test_what_auto_means_is_set_for_a_block_or_a_program(monkeypatch):
    monkeypatch.setenv('HYBRID_MM_IMPL', 'fft')
    assert chosen_impl('auto', 'grid_convolution') == 'fft'
    assert chosen_impl('bmm', 'grid_convolution') == 'bmm'  # a name that is given stays
    assert chosen_impl('auto', 'local_attention') == 'auto'  # which has no such algorithm
    with default_impl('reference'):
        assert {chosen_impl('auto', operator) for operator in ALGORITHMS} == {'reference'}
        with default_impl('tiled'):
            assert chosen_impl('auto', 'local_attention') == 'tiled'
            assert chosen_impl('auto', 'grid_convolution') == 'auto'
        assert chosen_impl('auto', 'local_attention') == 'reference'
    assert chosen_impl('auto', 'grid_convolution') == 'fft'
    monkeypatch.delenv('HYBRID_MM_IMPL')
    assert chosen_impl('auto', 'grid_convolution') == 'auto'


def test_wrong_names_are_told(monkeypatch):
    with (
        pytest.raises(ValueError, match=r"impl must be auto or one of bmm, .*, got 'cuda'"),
        default_impl('cuda'),
    ):
        pass
    monkeypatch.setenv('HYBRID_MM_IMPL', 'fastest')
    with pytest.raises(UserError, match=r"HYBRID_MM_IMPL must be auto or one of .*, got 'fastest'"):
        chosen_impl('auto', 'local_attention')


def test_operators_and_modules_follow(monkeypatch):
    """The plain formulation calls none of our operators."""
    called = []
    x = torch.rand(1, 2, 3, 3, 4)
    weight = torch.rand(3, 1, 3)
    layer = WindowAttention(4, 16, 2).eval()

    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    def names():
        called.clear()
        with torch.no_grad(), Names():
            local_attention(x, x, x, 3)
            grid_convolution(x[0], weight, (1,), (1, 1, 1))
            layer(torch.rand(1, 16, 16, 4))
        return ' '.join(called)

    assert 'hybrid_mm' in names()
    with default_impl('reference'):
        assert 'hybrid_mm' not in names()


def runs(dtype=torch.float64):
    """Operator -> function of ``impl`` that runs it on small inputs, the same every time."""
    torch.manual_seed(0)

    def rand(*shape):
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    qkv = [rand(1, 2, 6, 4, 4) for _ in range(3)]  # 2 heads, 6 x 4 pixels
    maps = rand(1, 2, 6, 4)
    positions = rand(11, 4), rand(7, 4)
    chain = rand(1, 2, 24, 24), rand(2, 2, 3, 3), rand(2)
    distances, hidden, ghost = rand(2, 6, 4), rand(1, 3, 6, 4), (rand(18, 3), rand(18))
    mix = rand(1, 3, 2, 6, 4), rand(5, 3), None, rand(8, 5, 3, 3)
    learned = rand(1, 2, 2, 6, 4), maps, rand(2, 2, 3, 3), rand(2, 2, 3, 3)
    kernel, spectrum = rand(2, 5, 5), rand(2, 4, 3, 2)
    separable = rand(1, 6, 4, 3), rand(2, 5, 6), rand(2, 3, 4), rand(2, 7, 3)
    vector = PairwiseAttention2d(2, 2, 4, 2, 3).to(dtype).eval()

    def vector_attention(impl):
        vector.impl = impl
        return vector(maps)

    return {
        'local_attention': lambda impl: local_attention(*qkv, 3, impl=impl),
        'partition_attention': lambda impl: partition_attention(*qkv, 2, impl=impl),
        'decomposed_attention': lambda impl: decomposed_attention(*qkv, *positions, impl=impl),
        'distance_attention': lambda impl: distance_attention(*qkv, distances, impl=impl),
        'evolving_attention': lambda impl: evolving_attention(
            *qkv, *positions, *chain, impl=impl)[0],
        'ghost_attention': lambda impl: ghost_attention(
            hidden, maps, *ghost, heads=2, kernel_size=3, impl=impl),
        'vector_attention': vector_attention,
        'mixed_shift': lambda impl: mixed_shift(*mix, impl=impl),
        'learned_query_attention': lambda impl: learned_query_attention(*learned, impl=impl),
        'grid_convolution': lambda impl: grid_convolution(maps, kernel, [1] * 5, impl=impl),
        'depthwise_convolution': lambda impl: depthwise_convolution(
            maps, kernel[:, None], dilation=(1, 2), impl=impl),
        'separable_attention': lambda impl: separable_attention(*separable, impl=impl),
        'global_filter': lambda impl: global_filter(maps, spectrum, impl),
    }  # fmt: skip


@pytest.mark.parametrize('operator', ALGORITHMS)
def test_every_name_runs_and_agrees(operator):
    run = runs()[operator]
    expected = run('reference')
    compiled = fused.is_available(expected)
    for impl in choices(operator):
        if impl == 'triton':
            continue
        if compiled or 'convolution' not in operator or impl != 'fused':
            torch.testing.assert_close(run(impl), expected)


@pytest.mark.parametrize('operator', [name for name in ALGORITHMS if 'triton' in choices(name)])
def test_triton_runs_and_agrees(operator, monkeypatch, interpreter):
    run, expected = runs(torch.float32)[operator], runs()[operator]('reference')
    torch.testing.assert_close(run('triton').double(), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.delenv(INTERPRET_VARIABLE)
    with pytest.raises(RuntimeError, match=f"impl='triton' of {operator}: tensors on cpu"):
        run('triton')
