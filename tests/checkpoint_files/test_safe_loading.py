"""Files of torch read by the interpreter for releases of torch whose own is not safe enough."""

import collections
import io
import os
import pickle
import random
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from hybrid_mm.checkpoint_files import CheckpointError, checksum, load_from_local
from hybrid_mm.compat import safe_loading, workarounds
from hybrid_mm.compat.stored_classes import stored_classes

theirs = torch._weights_only_unpickler


def archive(program, **records):
    """A file of torch with a pickle of one's own, without CRC-32 of what is changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as opened:
        parts = {'data.pkl': program, 'byteorder': b'little', 'version': b'3\n'} | {
            f'data/{name}': content for name, content in records.items()
        }
        for name, content in parts.items():
            opened.writestr(f'x/{name}', content)
    return file.getvalue()


def restricted(content):
    return safe_loading.load_restricted(io.BytesIO(content), 'cpu', stored_classes())


def refusal(program):
    with pytest.raises(pickle.UnpicklingError, match='weights_only') as caught:
        restricted(archive(program))
    return str(caught.value)


@pytest.mark.skipif(not safe_loading.torch_is_safe(), reason='names of torch >= 2.10')
def test_names_are_those_of_torch():
    ours, expected = safe_loading._names_of_torch(), theirs._get_allowed_globals()
    assert all('sparse' in name for name in expected.keys() - ours.keys())
    assert ours.keys() - expected.keys() <= theirs._get_user_allowed_globals().keys()
    for name in expected.keys() & ours.keys():
        other = 'Storage' in name or name.endswith(('_tensor_v3', '_qtensor', '_nested_tensor'))
        assert other or ours[name] is expected[name], name


def test_operations_are_those_of_torch():
    """One operation after another on values that suit none of them."""

    def known(load, code):
        try:
            load(io.BytesIO(b'\x80\x02' + bytes([code]) + b'.'))
        except Exception as error:
            return f'Unsupported operand {code}' not in str(error)
        return True

    class Ours(safe_loading._Unpickler):
        known, callable_ = {}, frozenset()

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for code in range(256):
            expected = known(lambda file: theirs.Unpickler(file).load(), code)
            assert known(lambda file: Ours(file).load(), code) == expected, chr(code)


HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
ENTRY = b'X\x01\0\0\0aK\x01'
REFUSED = {
    'function': (b'cposix\nsystem\nX\x02\0\0\0ls\x85R.', 'GLOBAL posix.system is'),
    'function of os': (b'cos\nsystem\nX\x02\0\0\0ls\x85R.', 'GLOBAL os.system is'),
    'built-in': (b'c__builtin__\neval\nX\x01\0\0\x001\x85R.', 'GLOBAL eval is'),
    'function of torch': (b'ctorch.hub\nload\n)R.', 'GLOBAL torch.hub.load is'),
    'operation of torch': (b'ctorch\nconv2d\n)R.', 'GLOBAL torch.conv2d is'),
    'function of its tools': (b'ctorch._utils\n_import_dotted_name\n)R.', '_name is'),
    'old function': (b'ctorch._utils\n_rebuild_xla_tensor\n)R.', '_rebuild_xla_tensor is'),
    'storage by name': (b'ctorch.storage\n_load_from_bytes\nC\0\x85R.', '_load_from_bytes is'),
    'path': (b'ctorch.serialization\nos.system\n)R.', 'GLOBAL torch.serialization.os.system'),
    'call of a number': (b'K\x01)R.', 'a call of a int'),
    'call of a type of numbers': (b'ctorch._C\n_load\n)R.', 'GLOBAL torch._C._load'),
    'call of an object': (b'ccollections\nOrderedDict\n)R)R.', 'a call of a OrderedDict'),
    'object of a function': (b'ctorch._utils\n_rebuild_tensor\n)\x81.', 'an object of a function'),
    'object of an object': (b'ccollections\nOrderedDict\n)R)\x81.', 'an object of a OrderedDict'),
    'state of a class': (HISTORY + b'N}' + ENTRY + b's\x86b.', 'a state of a type'),
    'state of a function': (b'ctorch._utils\n_rebuild_tensor\n}' + ENTRY + b'sb.', 'of a function'),
    'state of a dict': (b'}}' + ENTRY + b'sb.', 'a state of a dict'),
    'item of a text': (b'X\x01\0\0\0aK\x01a.', 'an item of a str'),
    'items of a set': (b'\x8f(K\x01e.', 'an item of a set'),
    'item of a history': (HISTORY + b')\x81K\x01a.', 'an item of a HistoryBuffer'),
    'entry of a list': (b']K\x00K\x01s.', 'an entry of a list'),
    'entries of a list': (b'](K\x00K\x01u.', 'an entry of a list'),
    'entry of a tensor': (b'ctorch\nTensor\nK\x02\x85R' + ENTRY + b's.', 'an entry of a Tensor'),
    'persistent number': (b'K\x01Q.', 'a persistent id'),
    'persistent module': (b'(X\x06\0\0\0modulecposix\nsystem\ntQ.', 'GLOBAL posix.system'),
    'persistent text': (b'X\x07\0\0\0storage\x85\x85Q.', 'a persistent id'),
    'empty persistent id': (b')Q.', 'a persistent id'),
    'instance': (b'(ios\nsystem\n.', 'Unsupported operand 105'),
    'extension': (b'\x82\x01.', 'Unsupported operand 130'),
    'later protocol': (b'\x8c\x02os\x8c\x06system\x93.', 'Unsupported operand 140'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_programs(kind, monkeypatch):
    program, text = REFUSED[kind]
    before = dict(vars(HistoryBuffer))
    calls = [HistoryBuffer, *stored_classes()]
    monkeypatch.setattr(f'{__name__}.stored_classes', lambda: calls)
    assert text in refusal(b'\x80\x02' + program)
    assert dict(vars(HistoryBuffer)) == before


def test_methods_of_a_history_only(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    path = tmp_path / 'x.pth'
    for owner, name in (
        (b'cnumpy\nndarray\n', 'tofile'),
        (HISTORY, '__init__'),
        (HISTORY, 'register_statistics'),
    ):
        call = owner + f'X{chr(len(name))}\0\0\0{name}'.encode() + b'\x86R.'
        path.write_bytes(archive(b'\x80\x02c__builtin__\ngetattr\n' + call))
        with pytest.raises(CheckpointError, match=r'holds getattr that could run code'):
            load_from_local(str(path))


STORAGE = b'(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK%ctQ'
TENSOR = b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(' + STORAGE
TENSOR += b'K\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR.'


@pytest.mark.parametrize('size', [2, 4, 6])
def test_false_sizes(size):
    """The pickle declares more or fewer numbers than the archive has."""
    content = archive(TENSOR % size, **{'0': np.arange(4, dtype=np.float32).tobytes()})
    if size == 4:
        assert restricted(content).tolist() == [0, 1, 2, 3]
    else:
        with pytest.raises(RuntimeError, match=f'has 16 bytes; expected {4 * size}'):
            restricted(content)


def test_what_else_is_not_read():
    """Numbers beyond a storage, numbers onto 'meta', functions of os that a user allowed."""
    numbers = {'0': np.arange(4, dtype=np.float32).tobytes()}
    with pytest.raises(RuntimeError, match='resize storage that is not resizable'):
        restricted(archive((TENSOR % 4).replace(b'K\x04\x85K\x01', b'K\x09\x85K\x01'), **numbers))
    file = io.BytesIO(archive((TENSOR % 6).replace(b'K\x04\x85', b'K\x06\x85'), **numbers))
    assert safe_loading.load_restricted(file, 'meta').shape == (6,)
    with pytest.raises(pickle.UnpicklingError, match=r'GLOBAL posix\.system'):
        file = io.BytesIO(archive(b'\x80\x02cposix\nsystem\n.'))
        safe_loading.load_restricted(file, 'cpu', [os.system])


class Program:
    """What becomes a call and a state when it is pickled."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def told(code, *state):
    """An array of a type of numbers that is told `state`."""
    kind = Program(np.dtype, (code, False, True), *([state] if state else []))
    return Program(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b'b'),
                   (1, (2,), kind, False, b'\x10' * 16))  # fmt: skip


PLAIN = np.dtype('f8')
TOLD = {
    'fields': told('f8', 3, '<', None, ('a',), {'a': (PLAIN, 0)}, -1, -1, 0),
    'parts': told('f8', 3, '<', (PLAIN, (4,)), None, None, -1, -1, 0),
    'flags': told('f8', 3, '<', None, None, None, -1, -1, 1),
    'size': told('U2', 3, '<', None, None, None, -4, 4, 8),
    'metadata': told('f8', 4, '<', None, None, None, -1, -1, 0, ({}, None)),
}


@pytest.mark.parametrize('kind', TOLD)
def test_types_of_numbers_are_told_their_order_of_bytes_only(kind):
    content = archive(pickle.dumps(TOLD[kind], 2))
    with pytest.raises(pickle.UnpicklingError, match='such a state of a type of numbers is'):
        restricted(content)
    try:
        found = safe_loading.load(io.BytesIO(content), 'cpu', stored_classes())
    except pickle.UnpicklingError:
        return
    assert found.dtype is np.dtype('f8')  # torch's interpreter told it in vain


@pytest.mark.parametrize('code', ['O', 'f8,O', [('a', 'f8')], 'V8'])
@pytest.mark.parametrize('load', ['load', 'load_restricted'])
def test_types_of_numbers_only(load, code):
    content = archive(pickle.dumps(told(code), 2))
    with pytest.raises(pickle.UnpicklingError, match=r'GLOBAL numpy\.dtype of .* is refused'):
        getattr(safe_loading, load)(io.BytesIO(content), 'cpu', stored_classes())


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'older'])
@pytest.mark.parametrize('texts', [True, False])
def test_arrays_of_all_orders_and_texts(texts, new, tmp_path):
    saved = [np.arange(3, dtype=t) for t in ('>f4', '<f4', '>i8', 'u1', 'c16')]
    if texts:
        saved = [np.arange(3.0), np.array(['a', 'é']), np.array([b'ab']), np.str_('x')]
    torch.save(saved, tmp_path / 'x.pth', _use_new_zipfile_serialization=new)
    for load in (safe_loading.load, safe_loading.load_restricted):
        with open(tmp_path / 'x.pth', 'rb') as file:
            found = load(file, 'cpu', stored_classes())
        assert [x.tolist() for x in found] == [x.tolist() for x in saved]
        # NumPy itself changes the order to that of the machine
        assert [x.dtype for x in found] == [x.dtype.newbyteorder('=') for x in saved]


def test_quantised_tensors_are_not_larger_than_their_storages():
    kind = b'(ctorch\nper_tensor_affine\nG?\xf0\0\0\0\0\0\0K\0t'
    start = b'\x80\x02ctorch._utils\n_rebuild_qtensor\n('
    start += STORAGE.replace(b'FloatStorage', b'QInt8Storage') % 4
    end = b'K\x01\x85' + kind + b'\x89ccollections\nOrderedDict\n)RtR.'
    numbers = {'0': b'\1\2\3\4'}
    found = restricted(archive(start + b'K\1K\3\x85' + end, **numbers))
    assert found.int_repr().tolist() == [2, 3, 4]
    for place in (b'K\0K\5\x85', b'K\2K\3\x85', b'J\xff\xff\xff\xffK\1\x85'):
        with pytest.raises(RuntimeError, match=r'larger than its storage|negative size'):
            restricted(archive(start + place + end, **numbers))


@pytest.mark.skipif(
    not hasattr(torch._utils, '_rebuild_nested_tensor'), reason='torch >= 2.2 pickles them'
)
@pytest.mark.filterwarnings('ignore')
def test_nested_tensors_are_not_larger_than_their_storages():
    rebuild = safe_loading._rebuild_nested_tensor
    sizes, steps = torch.tensor([[1, 2], [1, 2]]), torch.tensor([[2, 1], [2, 1]])
    found = rebuild(torch.arange(4.0), sizes, steps, torch.tensor([0, 2]))
    assert [x.tolist() for x in found.unbind()] == [[[0, 1]], [[2, 3]]]
    for wrong in ((steps, [0, 9]), (steps, [0, -1]), (steps * 10**6, [0, 2])):
        with pytest.raises(RuntimeError, match=r'larger than its storage|negative size'):
            rebuild(torch.arange(4.0), sizes, wrong[0], torch.tensor(wrong[1]))


@pytest.mark.parametrize(
    'of', ['compressed', 'not readable into', *['after a header'] * safe_loading.torch_is_safe()]
)
def test_archives_that_are_read_in_other_ways(of):
    file, content = io.BytesIO(), (TENSOR % 4, np.arange(4, dtype=np.float32).tobytes())
    file.write(b'header' if of == 'after a header' else b'')
    start = file.tell()
    inner = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if of == 'compressed' else zipfile.ZIP_STORED
    with zipfile.ZipFile(inner, 'w', how) as opened:
        for name, part in zip(('data.pkl', 'data/0'), content, strict=True):
            opened.writestr(f'x/{name}', part)
        opened.writestr('x/version', b'3\n')
    file.write(inner.getvalue())
    file.seek(start)
    if of == 'not readable into':

        class Plain:
            read, seek, tell = file.read, file.seek, file.tell
            readline = file.readline

        file = Plain()
    assert safe_loading.load_restricted(file).tolist() == [0, 1, 2, 3]


def test_other_archives(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as opened:
        for name, content in (('constants.pkl', b'\x80\x02N.'), ('version', b'3\n')):
            opened.writestr(f'x/{name}', content)
    with pytest.raises(pickle.UnpicklingError, match='a TorchScript archive is refused'):
        restricted(file.getvalue())
    with tarfile.open(tmp_path / 'x.tar', 'w') as opened:
        for name in ('storages', 'tensors', 'pickle'):
            opened.addfile(tarfile.TarInfo(name))
    with pytest.raises(pickle.UnpicklingError, match=r'the format of torch 0\.1 is refused'):
        safe_loading.load_restricted(str(tmp_path / 'x.tar'))


class Tagged:
    """A class that a user allows."""


def contents():
    """Tensors and values of all kinds that files of torch may hold."""
    names = ('float32', 'float64', 'float16', 'bfloat16', 'complex64', 'bool', 'uint8', 'int64')
    state = {name: torch.arange(6).view(2, 3).to(getattr(torch, name)) for name in names}
    base = torch.arange(10.0)
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.tag = 'x'
    state |= dict(a=base[2:5], b=base[4:], t=base.view(2, 5).t(), empty=torch.empty(0, 3))
    state |= dict(scalar=torch.tensor(3.5), parameter=parameter, wide=torch.zeros(1).expand(3, 4))
    state |= dict(sparse=torch.eye(3).to_sparse(), rows=torch.eye(3).to_sparse_csr())
    state |= dict(conj=torch.ones(2, dtype=torch.complex64).conj())
    state |= dict(quantized=torch.quantize_per_tensor(base, 0.1, 0, torch.qint8))
    state |= dict(meta=torch.empty(3, device='meta'))
    plain = dict(size=torch.Size([1, 2]), device=torch.device('cuda:0'), layout=torch.sparse_coo)
    plain |= dict(dtype=torch.bfloat16, set={1, 2}, bytes=b'xy', array=bytearray(b'z'), c=1 + 2j)
    plain |= dict(number=1 << 70, ordered=collections.OrderedDict(a=1), none=None, negative=-5)
    plain |= dict(counter=collections.Counter('aab'), text='é\ud800', long='a' * 300, pair=(1,))
    plain |= dict(nothing=b'', numbers=np.array([]), swapped=np.arange(3, dtype='>f4'))
    plain |= dict(scalars=[np.float32(1), np.bool_(True), np.str_('x')], lists=[[1, 2, 3]] * 2)
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    return dict(state_dict=state, plain=plain, history=history, none=HistoryBuffer())


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'older'])
def test_reads_what_torch_reads(new, tmp_path, monkeypatch):
    path, saved = tmp_path / 'x.pth', contents()
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    found = load_from_local(str(path), 'cpu')
    assert checksum(found) == checksum(saved)
    state = found['state_dict']
    assert state['a'].untyped_storage().data_ptr() == state['b'].untyped_storage().data_ptr()
    assert isinstance(state['parameter'], torch.nn.Parameter) and state['parameter'].tag == 'x'
    assert state['meta'].is_meta and state['bfloat16'].dtype == torch.bfloat16
    assert state['rows'].layout == torch.sparse_csr and state['float32'].data_ptr() % 16 == 0
    assert all(type(value) is type(saved['plain'][key]) for key, value in found['plain'].items())


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'older'])
def test_sparse_tensors_are_checked(new, tmp_path):
    """One with a wrong index is refused, and the next file is not blamed for it."""
    path = tmp_path / 'x.pth'
    wrong = torch.sparse_coo_tensor([[7]], torch.ones(1), (2,), check_invariants=False)
    torch.save(dict(w=wrong), path, _use_new_zipfile_serialization=new)
    with pytest.raises(RuntimeError, match='size is inconsistent with indices'):
        safe_loading.load_restricted(str(path))
    torch.save(dict(w=torch.eye(2).to_sparse(), x=Tagged()), path)
    with pytest.raises(pickle.UnpicklingError):
        safe_loading.load(str(path))
    assert not torch._utils._sparse_tensors_to_validate


def test_types_of_8_bits(tmp_path):
    numbers = torch.arange(5).to(torch.float8_e4m3fn)
    content = archive(
        b'\x80\x02ctorch._utils\n_rebuild_tensor_v3\n('
        + (STORAGE % 5).replace(b'ctorch\nFloatStorage', b'ctorch.storage\nUntypedStorage')
        + b'K\0K\x05\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rctorch\nfloat8_e4m3fn\ntR.',
        **{'0': numbers.view(torch.uint8).numpy().tobytes()},
    )
    assert restricted(content).float().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('name', ['torch\nfloat4_e9m9', 'torch._utils\n_rebuild_tensor_v9'])
def test_what_newer_releases_write(name, tmp_path, monkeypatch):
    monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    (tmp_path / 'x.pth').write_bytes(archive(b'\x80\x02c' + name.encode() + b'\n.'))
    with pytest.raises(CheckpointError, match=r'torch\S+, which torch \S+ does not have; load it'):
        load_from_local(str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_both_generations_of_numpy(core, tmp_path, monkeypatch):
    monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    saved = dict(array=np.arange(3), scalar=np.float64(0.5), history=HistoryBuffer([1.0], [1]))
    torch.save(saved, tmp_path / 'x.pth')
    with zipfile.ZipFile(tmp_path / 'x.pth') as opened:
        program = opened.read('x/data.pkl')
    for old in (b'numpy.core.', b'numpy._core.'):
        program = program.replace(old, f'numpy.{core}.'.encode())
    (tmp_path / 'y.pth').write_bytes(archive(program))
    found = load_from_local(str(tmp_path / 'y.pth'))
    assert found['array'].tolist() == [0, 1, 2] and found['scalar'] == 0.5
    assert found['history'].mean() == 1


def test_numbers_are_not_read_onto_meta(tmp_path, monkeypatch):
    torch.save(dict(w=torch.ones(3, dtype=torch.bfloat16), n=3), tmp_path / 'x.pth')
    read = []
    monkeypatch.setattr(safe_loading._Records, '__getattr__', lambda self, name: (
        read.append(name), getattr(self._archive, name))[1])  # fmt: skip
    found = safe_loading.load_restricted(str(tmp_path / 'x.pth'), 'meta')
    assert found['w'].is_meta and found['w'].shape == (3,) and found['n'] == 3
    assert found['w'].dtype == torch.bfloat16 and 'has_record' in read
    assert 'get_storage_from_record' not in read


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'), reason='torch >= 2.4 has the list'
)
def test_classes_that_a_user_allows(tmp_path):
    torch.save(Tagged(), tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError, match=r'GLOBAL \S*test_safe_loading\.Tagged'):
        safe_loading.load_restricted(str(tmp_path / 'x.pth'))
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([Tagged, Path('x').touch.__func__])
    try:
        assert type(safe_loading.load_restricted(str(tmp_path / 'x.pth'))) is Tagged
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.skipif(not safe_loading.torch_is_safe(), reason='compares with torch >= 2.10')
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('new', [True, False], ids=['zip', 'older'])
def test_changed_files_do_the_same_as_with_torch(new, tmp_path):
    """Nothing is accepted that torch refuses, and the other way round."""
    torch.save(contents(), tmp_path / 'x.pth', _use_new_zipfile_serialization=new)
    good, draw = (tmp_path / 'x.pth').read_bytes(), random.Random(0)
    start = good.index(b'\x80\x02}')
    allowed = [HistoryBuffer, (workarounds._method, 'builtins.getattr'), *stored_classes()]

    def outcome(load, content):
        try:
            found = load(io.BytesIO(content), 'cpu', allowed)
            # an older file whose storages are missing gives what is in the memory
            return checksum(found) if new else repr(found['plain'])
        except Exception:
            return 'refused'

    seen = set()
    for _ in range(60):
        changed = bytearray(good)
        for _ in range(draw.choice([1, 1, 3])):
            changed[start + draw.randrange(3, 3000)] = draw.randrange(256)
        expected = outcome(safe_loading.load, bytes(changed))
        assert outcome(safe_loading.load_restricted, bytes(changed)) == expected
        seen.add(expected)
    assert 'refused' in seen and len(seen) > 1


def test_workarounds_use_it(tmp_path, monkeypatch):
    """And whoever trusts a file may still load it."""
    monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    path = str(tmp_path / 'x.pth')
    torch.save(dict(w=Tagged()), path)
    with pytest.raises(RuntimeError, match=r'holds \S*Tagged that could run code when loaded'):
        workarounds.load_from_local(path)
    monkeypatch.setenv(workarounds.TRUST, '1')
    assert type(workarounds.load_from_local(path)['w']) is Tagged
