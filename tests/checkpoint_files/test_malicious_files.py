"""Files made to run code, to hang or to fill the memory: one message each, and nothing else."""

import argparse
import collections
import copyreg
import io
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hybrid_mm.checkpoint_files import load_from_local
from hybrid_mm.checkpoint_files.nesting import deepest_tuple
from hybrid_mm.checkpoints import CheckpointError, read_checkpoint, weights_of

FLAX = Path(__file__).with_name('data') / 'checkpoint_7'


class Calls:
    """What a pickle of this class calls when it is loaded."""

    def __init__(self, function, *arguments, **rest):
        self.made = (function, arguments, *rest.values())

    def __reduce__(self):
        return self.made


def named(name, *arguments):
    """A pickle that calls a function by its dotted name."""
    module, _, attribute = name.rpartition('.')
    return (
        b'\x80\x02' + f'c{module}\n{attribute}\n'.encode()
        + pickle.dumps(arguments, 2)[2:-1] + b'R.'
    )  # fmt: skip


ATTACKS = {
    'os.system': Calls(os.system, 'touch ran'),
    'eval': Calls(eval, "open('ran', 'w')"),
    'exec': Calls(exec, "open('ran', 'w')"),
    'getattr': Calls(getattr, str, 'format'),
    'open': Calls(open, 'ran', 'w'),
    'import': Calls(__import__, 'antigravity'),
    'numpy.load': Calls(np.load, 'x.npy', None, True),
    'fromfile': Calls(np.fromfile, '/etc/passwd'),
    'torch.load': Calls(torch.load, 'x.pth'),
    'storage': Calls(torch.storage._load_from_bytes, b'x'),
    'copyreg': Calls(copyreg._reconstructor, argparse.Namespace, object, None),
    'ufunc': Calls(np.frompyfunc, print, 1, 1),
    'objects': np.array([print, Calls(os.system, 'touch ran')], object),
    'plain objects': np.array([1, 'a'], object),
    'records': np.zeros(2, 'i4,f4'),
    'dates': np.zeros(2, 'M8[s]'),
    'tensor': torch.ones(2),
    'function': len,
    'namespace': argparse.Namespace(a=1),
}
ARRAY = b'cnumpy.core.multiarray\n_reconstruct\n'
PICKLES = {
    'no call': b'\x80\x02cnumpy\nndarray\n)R.',
    'call of a text': b'\x80\x02X\x01\0\0\0a)R.',
    'call of an array': b'\x80\x02' + ARRAY + b')R)R.',
    'array without numbers': b'\x80\x02}X\x01\0\0\0a' + ARRAY + b')Rs.',
    'state of a list': b'\x80\x02])b.',
    'state of a function': b'\x80\x02' + ARRAY + b'}X\x04\0\0\0callNsb.',
    'state of a class': b'\x80\x02cnumpy\nndarray\n(NNNNtb.',
    'items of a text': b'\x80\x02X\x01\0\0\0aK\x01a.',
    'entry of a list': b'\x80\x02]K\x01K\x02s.',
    'within itself': b'\x80\x02]q\0h\0a.',
    'persistent': b'\x80\x02X\x01\0\0\0aQ.',
    'extension': b'\x80\x02\x82\x01.',
    'instance': b'\x80\x02(ios\nsystem\n.',
    'object': b'\x80\x02(cnumpy\nndarray\no.',
    'buffer': b'\x80\x05\x97.',
    'deep key': b'\x80\x02})' + b'\x85' * 300_000 + b'K\x01s.',
    'deep member': b'\x80\x04\x8f()' + b'\x85' * 300_000 + b'\x90.',
    'deep lists': b'\x80\x02' + b']' * 200_000 + b'a' * 199_999 + b'.',
    'long text': b'\x80\x02X\xff\xff\xff\xffab.',
    'long bytes': b'\x80\x04\x8e' + struct.pack('<Q', 1 << 62) + b'ab.',
    'long bytearray': b'\x80\x05\x96' + struct.pack('<Q', 1 << 40) + b'ab.',
    'long frame': b'\x80\x04\x95' + struct.pack('<Q', 1 << 40) + b'N.',
    'long number': b'\x80\x02\x8b\xff\xff\xff\x7f1.',
    'negative number': b'\x80\x02\x8b\xff\xff\xff\xff1.',
    'many digits': b'\x80\x02L' + b'9' * 1_000_000 + b'L\n.',
    'place': b'\x80\x02Nr\xff\xff\xff\x7fj\xff\xff\xff\x7e.',
    'no memo': b'\x80\x02h\x07.',
    'nothing': b'\x80\x02.',
    'one byte': b'\x80',
    'no end': b'\x80\x02]q\0',
    'protocol': b'\x80\x05\x80\x07N.',
    'large key': b'\x80\x02}\x8a\x09' + b'\x01' * 9 + b'Ns.',
    'repeated copies': b'\x80\x02(' + b'N' * 200_000 + b'lq\0)c__builtin__\nset\nq\x01'
    + b'h\x01h\0\x85R' * 2000 + b't.',
    'encoding': named('_codecs.encode', 'a', 'rot13'),
    'a large array': b'\x80\x02' + ARRAY + b')R(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nX\x02\0\0'
    b'\0f4\x85R\x89X\x02\0\0\0abtb.',
}  # fmt: skip


def check(path):
    """Refused with one line, soon, in little memory; nothing ran."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 600
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert not Path('ran').exists()
    return str(caught.value)


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('attack', ATTACKS)
def test_pickles_that_call(attack, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'x.pkl'
    content = {'model': {'w': np.ones(2), 'x': ATTACKS[attack]}}
    path.write_bytes(pickle.dumps(content, protocol))
    text = check(path)
    assert 'pickle that torch did not write; it names' in text or 'expected numbers' in text, text


@pytest.mark.parametrize('attack', ATTACKS)
@pytest.mark.usefixtures('by')
def test_files_of_torch_that_call(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'x.pth'
    attacks = ('tensor', 'namespace', 'plain objects', 'records', 'dates')
    torch.save({'w': torch.ones(2), 'args': argparse.Namespace(x=ATTACKS[attack])}, path)
    if attack in attacks:  # what they make is data
        try:
            read_checkpoint(str(path))
        except CheckpointError as error:
            assert '\n' not in str(error)
    else:
        assert 'that could run code when loaded' in check(path)
    assert not Path('ran').exists()


@pytest.mark.parametrize('kind', PICKLES)
def test_pickles_of_no_program(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x.pkl').write_bytes(PICKLES[kind])
    assert ('more than its size allows' in check(tmp_path / 'x.pkl')) == (kind == 'repeated copies')


def test_shared_containers(tmp_path):
    """Lists of two references to the list before, sixty times: small to read, if done right."""
    tree = [np.ones(1)]
    for _ in range(60):
        tree = [tree, tree]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps({'model': {'w': np.ones(2)}, 'x': tree}))
    assert read_checkpoint(str(tmp_path / 'x.pkl'))['model']['w'].shape == (2,)


def test_shared_numbers(tmp_path):
    """One array's numbers used by thousands of arrays."""
    function = b'cnumpy._core.numeric\n_frombuffer\nq\0'
    dtype = b'cnumpy\ndtype\nX\x02\0\0\0u1\x85Rq\x01'
    data = b'B' + struct.pack('<I', 1 << 18) + bytes(1 << 18) + b'q\x02'
    one = b'(h\x02h\x01J\0\0\x04\0\x85X\x01\0\0\0CtR'
    content = b'\x80\x03(' + function + dtype + data + b''.join([b'h\0' + one] * 4000) + b't.'
    (tmp_path / 'x.pkl').write_bytes(content)
    assert 'far more than its size allows' in check(tmp_path / 'x.pkl')


def npz(**parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(f'{name}.npy', content)
    return file.getvalue()


def npy(header, data=b''):
    header = header.ljust(117).encode() + b'\n'
    return b'\x93NUMPY\x01\0' + struct.pack('<H', len(header)) + header + data


ARCHIVES = {
    'objects': lambda: npz(a=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b'x')),
    'records': lambda: npz(
        a=npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,)}", b'1234')
    ),
    'large': lambda: npz(
        a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", b'1234')
    ),
    'negative': lambda: npz(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}")),
    'code': lambda: npz(a=npy("__import__('os').system('touch ran')")),
    'no array': lambda: npz(a=b'text'),
    'empty array': lambda: npz(a=b''),
    'version': lambda: npz(a=b'\x93NUMPY\x09\0'),
    'bomb': lambda: npz(a=bytes(1 << 23)),
}


@pytest.mark.parametrize('kind', ARCHIVES)
def test_archives(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('hybrid_mm.checkpoint_files.integrity._ALWAYS_ALLOWED', 1 << 20)
    (tmp_path / 'x.npz').write_bytes(ARCHIVES[kind]())
    text = check(tmp_path / 'x.npz')
    assert kind != 'bomb' or 'would be unpacked to 8388608' in text


def large(name, *arguments):
    """A state dict whose tensor is what a function makes of a number."""
    return b'\x80\x02}X\x01\0\0\0w' + named(name, *arguments)[2:-1] + b's.'


TORCH = {
    'bytes': large('builtins.bytearray', 1 << 50),
    'array': large('numpy.ndarray', 1 << 50),
    'itself': b'\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.',
    'deep': b'\x80\x02}' + b'X\x01\0\0\0a}' * 100_000 + b's' * 100_000 + b'.',
    'shared': b'\x80\x02}q\0X\x01\0\0\0aK\x01s'
    + b''.join(b'}(X\x01\0\0\0ah%cX\x01\0\0\0bh%cuq%c' % (i, i, i + 1) for i in range(40)) + b'.',
}  # fmt: skip


@pytest.mark.parametrize('kind', TORCH)
@pytest.mark.usefixtures('by')
def test_archives_of_torch(kind, tmp_path):
    path = tmp_path / 'x.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in (('data.pkl', TORCH[kind]), ('byteorder', 'little'), ('version', '3')):
            archive.writestr(f'x/{name}', content)
    if kind in ('bytes', 'array'):
        assert 'too little memory for what it says' in check(path)
        with pytest.raises(CheckpointError):
            load_from_local(str(path))
    else:
        with pytest.raises(CheckpointError, match=r'dicts within dicts without an end'):
            weights_of(read_checkpoint(str(path)), str(path))


@pytest.mark.usefixtures('by')
def test_tensors_of_which_few_numbers_are_stored(tmp_path, monkeypatch):
    """A checksum reads all numbers."""
    monkeypatch.setattr('hybrid_mm.checkpoint_files.integrity._LARGEST', 1 << 20)
    wide = torch.zeros(1).expand(1 << 10, 1 << 10)
    for tensor in (wide, torch.sparse_coo_tensor([[0], [0]], torch.ones(1), wide.shape)):
        torch.save(dict(w=tensor, checksum='all:0'), tmp_path / 'x.pth')
        assert 'of which few are stored' in check(tmp_path / 'x.pth')
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    torch.save(dict(w=torch.ones(1), x=shared, checksum='all:0'), tmp_path / 'x.pth')
    monkeypatch.setattr('hybrid_mm.checkpoint_files.integrity._MOST_PARTS', 1000)
    assert 'without an end' in check(tmp_path / 'x.pth')


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'older'])
@pytest.mark.usefixtures('by')
def test_deep_keys_of_torch(new, tmp_path):
    """Python's hash of such a key ends the process."""
    key = ()
    for _ in range(150):
        key = (key,)
    torch.save({'w': torch.ones(1), key: 0, 'x': [[(1, (2, 3))]]}, tmp_path / 'x.pth',
               _use_new_zipfile_serialization=new)  # fmt: skip
    read_checkpoint(str(tmp_path / 'x.pth'))
    deep = b'\x80\x02})' + b'\x85' * 20_000 + b'K\x01s.'
    if new:
        with zipfile.ZipFile(tmp_path / 'y.pth', 'w') as archive:
            for name, content in (('data.pkl', deep), ('byteorder', 'little'), ('version', '3')):
                archive.writestr(f'x/{name}', content)
    else:
        content = (tmp_path / 'x.pth').read_bytes()
        at = content.index(b'.\x80\x02}', content.index(b'little_endian')) + 1
        (tmp_path / 'y.pth').write_bytes(content[:at] + deep + content[at:])
    assert 'tuples within tuples without an end' in check(tmp_path / 'y.pth')


def test_depth_of_tuples():
    lists = (1, [(2, {'a': (3,)}), frozenset([(4, (5, 6, 7, 8))])])
    for protocol in range(6):
        content = pickle.dumps((lists, lists), protocol)
        assert deepest_tuple(io.BytesIO(content)) in (4, 5)
    kept = b'\x80\x02)q\0h\0\x85q\0h\0h\0\x86q\0(h\0h\0tq\0.'
    assert deepest_tuple(io.BytesIO(kept)) == 3


@pytest.mark.usefixtures('by')
def test_archives_of_torch_that_grow(tmp_path, monkeypatch):
    monkeypatch.setattr('hybrid_mm.checkpoint_files.integrity._ALWAYS_ALLOWED', 1 << 20)
    torch.save(dict(w=torch.zeros(1 << 20)), tmp_path / 'x.pth')
    with (
        zipfile.ZipFile(tmp_path / 'x.pth') as plain,
        zipfile.ZipFile(tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    assert 'would be unpacked to' in check(tmp_path / 'y.pth')


PACKED = {
    'long text': b'\x81\xa1a\xdb\xff\xff\xff\xffab',
    'long bytes': b'\x81\xa1a\xc6\xff\xff\xff\xffab',
    'long list': b'\x81\xa1a\xdd\xff\xff\xff\xff',
    'long map': b'\xdf\xff\xff\xff\xff\xa1a\xc0',
    'long extension': b'\x81\xa1a\xc9\xff\xff\xff\xff\x01',
    'unknown extension': b'\x81\xa1a\xd4\x09\xc0',
    'deep': b'\x81\xa1a' + b'\x91' * 100_000 + b'\xc0',
    'extension in extension': b'\x81\xa1a\xc7\x04\x01\xc7\x01\x01\xc0',
    'unused code': b'\x81\xa1a\xc1',
    'rest': b'\x81\xa1a\xc0\xc0',
    'list as key': b'\x82\xa1a\xc0\x90\xc0',
    'bytes as key': b'\x82\xa1a\xc0\xc4\x01a\xc0',
    'large array': b'\x81\xa1a\xc7\x0e\x01\x93\x91\xce\xff\xff\xff\xff\xa2f4\xc4\x01a',
    'objects': b'\x81\xa1a\xc7\x08\x01\x93\x90\xa1O\xc4\x01a',
    'no pieces': b'\x81\xa1a\x81\xb9__msgpack_chunked_array__\xc3',
}


@pytest.mark.parametrize('kind', PACKED)
def test_flax(kind, tmp_path):
    (tmp_path / 'checkpoint_1').write_bytes(PACKED[kind])
    assert 'Flax checkpoint: ' in check(tmp_path / 'checkpoint_1')


def test_every_cut_and_many_changes(tmp_path):
    """A file that is cut anywhere is refused; one with a wrong byte is, or still gives tensors."""
    model = {f'blocks.{i}.weight': np.arange(3.0) + i for i in range(2)}
    archive = io.BytesIO()
    np.savez(archive, **model)
    contents = [FLAX.read_bytes(), archive.getvalue()]
    contents += [pickle.dumps({'model': model}, protocol) for protocol in (0, 2, 5)]
    draw, path = random.Random(0), tmp_path / 'x'
    for content in contents:
        for _ in range(12):
            path.write_bytes(content[: draw.randrange(30, len(content) - 1)])
            check(path)
        for _ in range(40):
            changed = bytearray(content)
            for _ in range(draw.choice([1, 1, 5])):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            path.write_bytes(changed)
            try:
                assert isinstance(read_checkpoint(str(path)), dict)
            except CheckpointError as error:
                assert '\n' not in str(error)
    assert collections.OrderedDict().__dict__ == {}
