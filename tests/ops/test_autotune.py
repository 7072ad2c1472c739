import json
import time
import warnings

import pytest
import torch

from hybrid_mm.ops import autotune
from hybrid_mm.ops.autotune import CACHE_VARIABLE, choose, describe


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(autotune, '_chosen', {})
    monkeypatch.setattr(autotune, '_read_files', set())
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)


class Candidate:
    """Takes a known time and counts its calls."""

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, 0

    def __call__(self, x):
        self.calls += 1
        time.sleep(self.seconds)
        return x * 1


def make():
    return {'slow': Candidate(0.02), 'fast': Candidate(0.001)}


def test_takes_the_fastest_and_remembers_it():
    candidates, x = make(), torch.ones(3)
    assert choose('op', (1,), candidates, [x]) == 'fast'
    calls = [c.calls for c in candidates.values()]
    assert choose('op', (1,), candidates, [x]) == 'fast'
    assert [c.calls for c in candidates.values()] == calls
    choose('op', (2,), candidates, [x])
    assert candidates['fast'].calls > calls[1]


def test_measures_the_backward_pass():
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            time.sleep(0.02)
            return grad

    candidates = {'quick forward': Slow.apply, 'quick both ways': Candidate(0.002)}
    x = torch.ones(3)
    assert choose('op', describe(x), candidates, [x]) == 'quick forward'
    x.requires_grad_()
    assert choose('op', describe(x), candidates, [x]) == 'quick both ways'
    with torch.no_grad():
        assert choose('op', describe(x), candidates, [x]) == 'quick forward'
    assert x.grad is None


def test_remembers_in_a_file(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'choices.json'
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    choose('op', (1,), make(), [torch.ones(3)])
    assert list(json.loads(path.read_text()).values()) == ['fast']
    autotune._chosen.clear()
    autotune._read_files.clear()
    candidates = make()
    assert choose('op', (1,), candidates, [torch.ones(3)]) == 'fast'
    assert candidates['slow'].calls == 0


@pytest.mark.parametrize('content', ['{', '[1]', '{"a": 1}'])
def test_a_broken_file_is_replaced_with_a_warning(content, tmp_path, monkeypatch):
    path = tmp_path / 'choices.json'
    path.write_text(content)
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    with pytest.warns(UserWarning, match='not a file of remembered choices'):
        assert choose('op', (1,), make(), [torch.ones(3)]) == 'fast'
    assert list(json.loads(path.read_text()).values()) == ['fast']


def test_a_remembered_algorithm_that_is_gone_is_measured_anew(tmp_path, monkeypatch):
    choose('op', (1,), {'gone': Candidate(0), 'other': Candidate(0.01)}, [torch.ones(3)])
    assert choose('op', (1,), make(), [torch.ones(3)]) == 'fast'


def test_no_measurement_while_compiling():
    candidates = make()

    def function(x):
        return candidates[choose('op', (1,), candidates, [x])](x)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # dynamo on the candidates' own attributes
        torch.compile(function, backend='eager')(torch.ones(3))
    assert choose('op', (1,), candidates, [torch.ones(3, device='meta')]) == 'slow'


def test_needs_a_candidate():
    with pytest.raises(ValueError, match='op: no algorithm'):
        choose('op', (), {}, [torch.ones(1)])


def test_a_choice_holds_for_one_device_and_number_of_threads(monkeypatch):
    candidates, x = make(), torch.ones(3)
    choose('op', (1,), candidates, [x])
    calls = candidates['slow'].calls
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 77)
    choose('op', (1,), candidates, [x])
    assert candidates['slow'].calls > calls


def test_shape_dtype_and_gradient_describe_a_tensor():
    x = torch.zeros(2, 3)
    different = [x, x.t(), x.double(), x.bfloat16(), torch.zeros(2, 4), None]
    different.append(torch.zeros(2, 3, requires_grad=True))
    assert len({describe(t) for t in different}) == len(different)
    assert describe(x, None) == (*describe(x), *describe(None))
    with torch.no_grad():
        assert describe(different[-1]) == describe(x)
