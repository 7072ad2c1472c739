import json
import os
import socket
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.compat.torch_api import COMPILES
from hybrid_mm.ops import autotune
from hybrid_mm.ops.autotune import CACHE_VARIABLE, choose, describe


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(autotune, '_chosen', {})
    monkeypatch.setattr(autotune, '_read_files', set())
    monkeypatch.setattr(autotune, '_warned', set())
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
    choose('op', (2,), make(), [torch.ones(3)])
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    assert [list(line.values()) for line in lines] == [['fast'], ['fast']]
    autotune._chosen.clear()
    autotune._read_files.clear()
    candidates = make()
    for key in (1, 2):
        assert choose('op', (key,), candidates, [torch.ones(3)]) == 'fast'
    assert candidates['slow'].calls == 0


@pytest.mark.parametrize(
    'content', [b'{', b'[1]', b'{"a": 1}', b'{"a": "b", "c": "d"}', b'\xff\x00']
)
def test_what_is_damaged_in_a_file_is_ignored_with_a_warning(content, tmp_path, monkeypatch):
    path = tmp_path / 'choices.json'
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    choose('op', (1,), make(), [torch.ones(3)])
    with path.open('ab') as file:
        file.write(content)
    for _ in range(2):  # and goes on after what is damaged
        for remembered in (autotune._chosen, autotune._read_files, autotune._warned):
            remembered.clear()
        candidates = make()
        with pytest.warns(UserWarning, match=r'1 of . lines are not stored choices'):
            assert choose('op', (1,), candidates, [torch.ones(3)]) == 'fast'
        assert candidates['slow'].calls == 0
        choose('op', (2,), make(), [torch.ones(3)])


def test_files_that_do_not_work_end_nothing(tmp_path, monkeypatch):
    folder, closed, below = tmp_path / 'folder', tmp_path / 'closed', tmp_path / 'closed' / 'file'
    folder.mkdir()
    closed.write_text('')
    for path, problem in ((folder, 'cannot be read'), (below, 'cannot be')):
        monkeypatch.setenv(CACHE_VARIABLE, str(path))
        with pytest.warns(UserWarning, match=problem) as noted:
            for key in (path, path.name):  # said once
                assert choose('op', (key,), make(), [torch.ones(3)]) == 'fast'
        assert len(noted) == 1
    full = tmp_path / 'full'
    monkeypatch.setenv(CACHE_VARIABLE, str(full))

    def refuse(path, mode='r', **kwargs):
        raise PermissionError('not yours')

    monkeypatch.setattr(autotune, 'open', refuse, raising=False)
    with pytest.warns(UserWarning, match='cannot be read .*not yours'):
        assert choose('op', ('full',), make(), [torch.ones(3)]) == 'fast'


def test_a_pipe_in_the_place_of_the_file(tmp_path, monkeypatch):
    """Whoever opens one waits for ever."""
    os.mkfifo(tmp_path / 'pipe')
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / 'pipe'))
    with pytest.warns(UserWarning, match='is a pipe, not a file') as noted:
        for key in (1, 2):
            assert choose('op', (key,), make(), [torch.ones(3)]) == 'fast'
    assert len(noted) == 1


def test_names_of_the_file(tmp_path, monkeypatch):
    """Below the home folder, and with bytes that are no text."""
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('~/new/choices', os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9')):
        monkeypatch.setenv(CACHE_VARIABLE, name)
        choose('op', (name,), make(), [torch.ones(3)])
        assert Path(name).expanduser().read_text().count('fast') == 1


def test_a_remembered_algorithm_that_is_gone_is_measured_anew(tmp_path, monkeypatch):
    choose('op', (1,), {'gone': Candidate(0), 'other': Candidate(0.01)}, [torch.ones(3)])
    assert choose('op', (1,), make(), [torch.ones(3)]) == 'fast'


@pytest.mark.skipif(not COMPILES, reason='Dynamo of this torch breaks graphs here, and measures')
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


def test_sizes_are_in_classes_of_half_an_octave():
    sizes = {describe(torch.empty(2, size, device='meta')) for size in range(480, 801)}
    assert len(sizes) == 2
    assert describe(torch.zeros(0, 1)) != describe(torch.zeros(1, 1))


def test_deterministic_algorithms_do_not_hang_on_a_clock():
    candidates = make()
    torch.use_deterministic_algorithms(True)
    try:
        assert choose('op', (1,), candidates, [torch.ones(3)]) == 'slow'
    finally:
        torch.use_deterministic_algorithms(False)
    assert choose('op', (1,), candidates, [torch.ones(3)]) == 'fast'


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with 1000 bytes of free memory, and an operator that takes fake tensors there."""
    gpu = SimpleNamespace(free=1000, capturing=False, emptied=0, clock=0.0)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = gpu.clock

        def synchronize(self):
            assert not gpu.capturing

        def elapsed_time(self, end):
            return 1000 * (end.time - self.time)

    def empty_cache():
        gpu.emptied += 1

    for name, value in dict(
        is_available=lambda: True,
        is_current_stream_capturing=lambda: gpu.capturing,
        mem_get_info=lambda device: (gpu.free, 10**6),
        memory_reserved=lambda device: 0,
        memory_allocated=lambda device: 0,
        get_device_name=lambda device: 'a GPU',
        empty_cache=empty_cache,
        device=lambda device: nullcontext(),
        Event=Event,
    ).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return gpu


class OnGPU:
    """Takes a known time by the clock of the GPU, other times at the first and the third run."""

    def __init__(self, gpu, seconds, odd=0.0, needs=0):
        self.gpu, self.seconds, self.odd, self.needs, self.calls = gpu, seconds, odd, needs, 0

    def __call__(self, x):
        self.calls += 1
        if self.needs > self.gpu.free:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        self.gpu.clock += self.odd if self.odd and self.calls in (1, 3) else self.seconds
        return x * 1


def test_gpus_are_measured_by_events_and_medians(gpu):
    with FakeTensorMode():
        x = torch.ones(3, device='cuda')
        candidates = {
            'steady': OnGPU(gpu, 2.0),
            'compiled at first, interrupted once': OnGPU(gpu, 1.0, odd=100.0),
            'fast by accident': OnGPU(gpu, 2.5, odd=0.1),
        }
        assert choose('op', (1,), candidates, [x]).startswith('compiled')


def test_a_candidate_without_memory_is_the_slowest(gpu):
    with FakeTensorMode():
        x = torch.ones(3, device='cuda')
        candidates = {'large': OnGPU(gpu, 0.1, needs=2000), 'small': OnGPU(gpu, 1.0)}
        assert choose('op', (1,), candidates, [x]) == 'small'
        assert gpu.emptied == 1
        only = {name: OnGPU(gpu, 0.1, needs=2000) for name in ('first', 'second')}
        assert choose('op', (2,), only, [x]) == 'first'


def test_nothing_is_measured_while_a_graph_is_captured_or_memory_is_short(gpu):
    with FakeTensorMode():
        x = torch.ones(3, device='cuda')
        candidates = {'slow': OnGPU(gpu, 2.0), 'fast': OnGPU(gpu, 1.0)}
        gpu.capturing = True
        assert choose('op', (1,), candidates, [x]) == 'slow'
        gpu.capturing = False
        assert choose('op', (1,), candidates, [x]) == 'fast'
        gpu.capturing = True
        assert choose('op', (1,), candidates, [x]) == 'fast'
        gpu.capturing, calls = False, candidates['slow'].calls
        large = torch.ones(100, device='cuda')  # 400 bytes, and as much for result and gradients
        assert choose('op', (2,), candidates, [large]) == 'slow'
        gpu.free = 10**6  # a step that has begun goes on as it began
        assert choose('op', (2,), candidates, [large]) == 'slow'
        assert candidates['slow'].calls == calls


def _choose_in_a_process(rank, folder, kind):
    """Processes that measure differently meet keys in another order; some meet one alone."""
    place = f'file://{folder}/store' if kind == 'file' else f'tcp://127.0.0.1:{kind}'
    dist.init_process_group('gloo', init_method=place, rank=rank, world_size=2)
    names = 'ab' if rank else 'ba'
    keys = [1, 2, 3, 4] if rank else [4, 3, 5, 2, 1]
    candidates = {'a': Candidate(0.01 if rank else 0.0), 'b': Candidate(0.0 if rank else 0.01)}
    candidates = {name: candidates[name] for name in names}
    found = {key: choose('op', (key,), candidates, [torch.ones(3)]) for key in keys}
    dist.barrier()
    Path(folder, f'{rank}.json').write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.parametrize('kind', ['file', 'tcp'])
def test_all_processes_take_one_choice(kind, tmp_path, in_two_processes):
    if kind == 'tcp':
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            kind = probe.getsockname()[1]
    in_two_processes(_choose_in_a_process, tmp_path, kind)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    assert first.pop('5') == 'a'
    assert first == second
