import weakref

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops import device_tables
from hybrid_mm.ops.device_tables import on_device

CPU = torch.device('cpu')


def counting():
    calls = []

    def make(length):
        calls.append(length)
        return np.arange(length), np.arange(length)[::-1]

    return make, calls


def test_a_table_is_made_once_for_its_arguments_and_device():
    make, calls = counting()
    first = on_device(make, 3, device=CPU)
    assert [x.tolist() for x in first] == [[0, 1, 2], [2, 1, 0]]
    assert on_device(make, 3, device=CPU)[0] is first[0]
    on_device(make, 4, device=CPU)
    assert calls == [3, 4]


def test_the_least_recently_used_table_goes_first(monkeypatch):
    monkeypatch.setattr(device_tables, '_MOST', 2)
    monkeypatch.setattr(device_tables, '_tables', type(device_tables._tables)())
    make, calls = counting()
    for length in (1, 2, 1, 3, 1, 2):
        on_device(make, length, device=CPU)
    assert calls == [1, 2, 3, 2]


def test_fake_tensors_stay_within_their_mode():
    make, calls = counting()
    cuda = torch.device('cuda')
    with FakeTensorMode():
        first = on_device(make, 3, device=cuda)
        assert on_device(make, 3, device=cuda)[0] is first[0]
    with FakeTensorMode():
        assert on_device(make, 3, device=cuda)[0] is not first[0]
    assert len(calls) == 2


def test_no_copy_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    make, calls = counting()
    cuda = torch.device('cuda')
    with pytest.raises(RuntimeError, match='before the capture'):
        on_device(make, 3, device=cuda)
    assert not calls


def test_captured_tables_stay_as_long_as_the_graph_that_reads_them(monkeypatch):
    capturing = [False]
    monkeypatch.setattr(device_tables, 'capturing', lambda device: capturing[0])
    monkeypatch.setattr(device_tables, '_MOST', 1)
    monkeypatch.setattr(device_tables, '_tables', type(device_tables._tables)())
    monkeypatch.setattr(device_tables, '_captured', {})
    make, _ = counting()
    kept = weakref.ref(on_device(make, 3, device=CPU)[0])
    forgotten = weakref.ref(on_device(make, 4, device=CPU)[0])
    assert kept() is None, 'which made room for the next'
    kept = weakref.ref(on_device(make, 3, device=CPU)[0])
    assert forgotten() is None
    capturing[0] = True
    on_device(make, 3, device=CPU)
    capturing[0] = False
    on_device(make, 4, device=CPU)
    assert kept() is not None


def test_tables_of_an_evaluation_serve_the_training_that_follows():
    make, _ = counting()
    with torch.inference_mode():
        on_device(make, 3, device=CPU)
    index, _ = on_device(make, 3, device=CPU)
    torch.ones(3, requires_grad=True)[index].sum().backward()


def test_compiled_graphs_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(device_tables, '_tables', type(device_tables._tables)())

    def function(x):
        return x[on_device(_reversed, len(x), device=x.device)[0]]

    compiled = torch.compile(function, backend='eager', fullgraph=True)
    assert compiled(torch.arange(3)).tolist() == [2, 1, 0]
    assert not device_tables._tables


def _reversed(length):
    return (np.arange(length)[::-1],)
