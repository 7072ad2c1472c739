import contextlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops import kernels
from hybrid_mm.ops.kernels import kernel, tl

triton = pytest.importorskip('triton', minversion='3.2')


@kernel
def _twice(x):
    return x * 2


@kernel
def _double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, _twice(tl.load(x_ptr + i, mask=i < n)), mask=i < n)


def test_kernels_run_in_the_interpreter(interpreter):
    x, y = torch.randn(10), torch.zeros(10)
    _double[(2,)](x, y, 10, BLOCK=8, num_warps=2)
    assert torch.equal(y, 2 * x)


@kernel
def _add_up(x_ptr, y_ptr, BLOCK: tl.constexpr):
    total = tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK)), 0)
    tl.store(y_ptr, total + tl.max(tl.zeros((BLOCK,), tl.float32), 0))


def test_the_interpreter_knows_functions_of_the_language_and_forgets_them(interpreter):
    x, y = torch.randn(8), torch.zeros(1)
    before = dict(vars(tl)), dict(vars(tl.core))
    _add_up[(1,)](x, y, BLOCK=8)
    torch.testing.assert_close(y[0], x.sum())
    assert before == (dict(vars(tl)), dict(vars(tl.core)))
    with pytest.raises(RuntimeError, match='outside of the scope of a kernel'):
        tl.zeros((8,), tl.float32)


@kernel
def _multiply(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    place = i[:, None] * SIZE + i[None, :]
    x = tl.load(x_ptr + place)
    tl.store(y_ptr + place, tl.dot(x, x))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_products_in_the_interpreter(interpreter, dtype):
    x, y = torch.randn(16, 16).to(dtype), torch.zeros(16, 16)
    _multiply[(1,)](x, y, SIZE=16)
    torch.testing.assert_close(y, x.float() @ x.float())


def test_one_compilation_serves_all_sizes():
    def specialised(function):
        return [p.name for p in function.params if not (p.do_not_specialize or p.is_constexpr)]

    sized = kernel(sizes='n')(_double.fn)
    assert specialised(_double) == ['x_ptr', 'y_ptr', 'n']
    assert specialised(sized) == ['x_ptr', 'y_ptr']


def test_recorded_launches_do_not_run(interpreter):
    x, y = torch.randn(10), torch.zeros(10)
    launches = []
    with kernels.recorded(launches.append):
        _double[(2,)](x, y, n=10, BLOCK=8, num_warps=2)
    assert not y.any()
    (launch,) = launches
    assert launch.kernel is _double
    assert launch.grid == (2,)
    assert launch.arguments['x_ptr'] is x
    assert launch.arguments['BLOCK'] == 8
    assert launch.options == {'num_warps': 2}


def test_why_kernels_cannot_work(monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    x = torch.ones(1)
    assert 'not on a GPU' in kernels.unavailable('local_attention', x, None)
    assert not kernels.available('local_attention', x)
    with pytest.raises(RuntimeError, match=r"impl='triton' of local_attention: tensors on cpu"):
        kernels.check_available('local_attention', x)


@pytest.mark.parametrize(
    ('there', 'said'),
    [(SimpleNamespace(__version__='3.1.0'), '3.1.0 is installed'), (None, 'triton')],
)
def test_without_a_triton_that_is_new_enough(monkeypatch, there, said):
    monkeypatch.setitem(sys.modules, 'triton', there)
    spec = importlib.util.spec_from_file_location('other_kernels', kernels.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    x = torch.ones(1)
    assert not other.available('local_attention', x)
    with pytest.raises(RuntimeError, match=r'Triton 3\.2 or newer is needed, .* \(.*' + said):
        other.check_available('local_attention', x)
    assert other.kernel(abs) is abs


def test_the_interpreter_serves_those_who_ask_for_it(interpreter):
    x = torch.ones(1)
    assert kernels.unavailable('local_attention', x) is None
    assert not kernels.available('local_attention', x), "'auto' on a CPU stays as it is"


def fails():
    raise RuntimeError('out of registers')


def test_kernels_start_on_the_gpu_of_their_tensors(monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    started = []

    @contextlib.contextmanager
    def device(where):
        started.append(where)
        yield
        started.append('left')

    monkeypatch.setattr(torch.cuda, 'device', device)
    monkeypatch.setattr(kernels.JITFunction, 'run', lambda *_, **__: started.append('run'))
    with FakeTensorMode():
        x = torch.ones(1, device='cuda:1')
    _double[(1,)](x, x, n=1, BLOCK=8)
    assert started == [torch.device('cuda:1'), 'run', 'left']


def test_errors_are_not_hidden_from_tests_and_from_those_who_lack_memory(monkeypatch, interpreter):
    with pytest.raises(RuntimeError, match='out of registers'):
        kernels.launched('local_attention', fails, lambda: 2)
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE)

    def lacks_memory():
        raise torch.cuda.OutOfMemoryError('no memory')

    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernels.launched('local_attention', lacks_memory, lambda: 2)


def test_gpus(monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    monkeypatch.setattr(kernels, '_failed', set())
    with FakeTensorMode():
        half = torch.ones(1, device='cuda', dtype=torch.float16)
        double = torch.ones(1, device='cuda', dtype=torch.float64)
    assert kernels.available('local_attention', half, None)
    assert 'float64' in kernels.unavailable('local_attention', double)
    assert kernels.launched('local_attention', lambda: 1, lambda: 2) == 1
    with pytest.warns(UserWarning, match='could not be compiled or started.*out of registers'):
        assert kernels.launched('local_attention', fails, lambda: 2) == 2
    assert kernels.launched('local_attention', lambda: 1, lambda: 2) == 2, 'it is not tried again'
    assert 'could not be compiled' in kernels.unavailable('local_attention', half)
    assert kernels.available('ghost_attention', half)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 0))
    kernels._ask_device.cache_clear()
    assert 'compute capability (7, 0)' in kernels.unavailable('ghost_attention', half)
    kernels._ask_device.cache_clear()
