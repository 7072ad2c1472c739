"""One vocabulary for algorithms, which a user can set for all operators at once."""

import pytest
import torch

from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.ops.dispatch import ALGORITHMS, check_impl, choices, chosen_impl, default_impl
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.local_attention import local_attention


def test_names_of_an_operator():
    assert choices('grid_convolution') == ('auto', 'reference', 'bmm', 'fft', 'fused')
    assert choices('local_attention', 'mixed_shift') == ('auto', 'reference', 'tiled')
    for operator in ALGORITHMS:
        for impl in choices(operator):
            check_impl(impl, operator)
    expected = "impl must be one of auto, reference, tiled for mixed_shift, got 'fft'"
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
    with pytest.raises(
        ValueError, match=r"HYBRID_MM_IMPL must be auto or one of .*, got 'fastest'"
    ):
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
