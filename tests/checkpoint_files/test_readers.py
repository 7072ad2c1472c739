"""Files of other libraries: each is known by its content and gives the tensors that are in it."""

import argparse
import collections
import datetime
import enum
import fractions
import io
import json
import os
import pathlib
import pickle
import sys
import types
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save

from hybrid_mm.checkpoint_files.arrays import tensor_of
from hybrid_mm.checkpoints import CheckpointError, read_checkpoint, weights_of

FLAX = Path(__file__).with_name('data') / 'checkpoint_7'  # see `flax_checkpoint`
ARRAYS = {
    'f4': np.arange(6, dtype='<f4').reshape(2, 3),
    'big': np.arange(6, dtype='>f4').reshape(3, 2),
    'big integers': np.arange(3, dtype='>i8'),
    'columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'f2': np.array([1.5, -2], np.float16),
    'bool': np.array([[True, False]]),
    'u1': np.array([3, 255], np.uint8),
    'scalar': np.array(2.5),
    'empty': np.zeros((0, 3), np.float32),
    'a/b': np.ones((1, 2, 1, 2), np.int16),
}
# what Python 2 with NumPy 1 writes for dict(model={'w': array([1, 2], 'f4')}), in protocol 0
PYTHON_2 = rb"""(dp0
S'model'
p1
(dp2
S'w'
p3
cnumpy.core.multiarray
_reconstruct
p4
(cnumpy
ndarray
p5
(I0
tp6
S'b'
p7
tp8
Rp9
(I1
(I2
tp10
cnumpy
dtype
p11
(S'f4'
p12
I0
I1
tp13
Rp14
(I3
S'<'
p15
NNNI-1
I-1
I0
tp16
bI00
S'\x00\x00\x80?\x00\x00\xff@'
p17
tp18
bss."""


class Colour(enum.Enum):
    RED = 1


def expected(array):
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder('=')))


def check(found):
    assert found.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        want = expected(array).reshape(array.shape)
        assert found[key].dtype == want.dtype and torch.equal(found[key], want), key
        found[key].clone().zero_()


def read(tmp_path, content, name='x.bin'):
    path = tmp_path / name
    path.write_bytes(content)
    return read_checkpoint(str(path))


@pytest.mark.parametrize('name', ['model_final_1a1c30.pkl', 'x.pth', 'x'])
def test_detectron2(name, tmp_path):
    saved = {'model': ARRAYS, '__author__': 'MViTv2', 'matching_heuristics': True}
    found = read(tmp_path, pickle.dumps(saved), name)
    assert found['__author__'] == 'MViTv2' and found['matching_heuristics'] is True
    check(found['model'])


@pytest.mark.parametrize('protocol', range(6))
def test_pickles_of_all_protocols(protocol, tmp_path):
    shared = np.ones(2)
    saved = {
        'model': collections.OrderedDict(ARRAYS),
        'rest': [shared, (shared, None, 3, -1.5, 1 << 70, 'ä', b'\0\xff'), {1: np.float32(2.5)}],
        'set': {3},
        'half': np.ones(2, 'V2').view('<f2'),
    }
    content = pickle.dumps(saved, protocol)
    if protocol < 4:  # the text has no lengths
        old = content.replace(b'numpy._core.', b'numpy.core.')
        assert (old == content) == (np.__version__ < '2')
        check(read(tmp_path, old)['model'])
    found = read(tmp_path, content)
    check(found['model'])
    first, second = found['rest'][:2]
    assert second[0] is first and second[1:] == (None, 3, -1.5, 1 << 70, 'ä', b'\0\xff')
    assert found['rest'][2] == {1: 2.5} and found['set'] == [3]


def test_pickle_of_python_2(tmp_path):
    found = read(tmp_path, PYTHON_2)
    assert torch.equal(weights_of(found, '')['w'], torch.tensor([1, 7.96875]))


def test_bfloat16_in_a_pickle(tmp_path):
    ml_dtypes = pytest.importorskip('ml_dtypes')
    for protocol in range(6):
        content = pickle.dumps({'w': np.array([1, 2.5], ml_dtypes.bfloat16)}, protocol)
        want = torch.tensor([1, 2.5], dtype=torch.bfloat16)
        assert torch.equal(read(tmp_path, content)['w'], want)


@pytest.mark.parametrize('write', [np.savez, np.savez_compressed])
def test_npz(write, tmp_path):
    file = io.BytesIO()
    write(file, **ARRAYS, names=np.array(['a', 'bc']))
    found = read(tmp_path, file.getvalue(), 'B_16.npz')
    assert found.pop('names') == ['a', 'bc']
    check(found)


def flax_checkpoint(folder):
    """Let Flax write a training state, with pieces of arrays as if they were larger."""
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    flax = pytest.importorskip('flax')
    jax, optax = pytest.importorskip('jax'), pytest.importorskip('optax')
    from flax import serialization
    from flax.training import checkpoints, train_state

    flax.config.update('flax_use_orbax_checkpointing', False)
    serialization.MAX_CHUNK_SIZE = 40
    params = {
        'Block_0': {'kernel': np.arange(12, dtype='f4').reshape(3, 4), 'bias': np.ones(2, 'f2')},
        'cls': jax.numpy.array([1.5, 2], jax.numpy.bfloat16),
        'counts': np.array([[1], [300]]),
    }
    state = train_state.TrainState.create(
        apply_fn=None, params=params, tx=optax.sgd(0.1, momentum=0.9)
    )
    extra = {'complex': 1 + 2j, 'scalar': np.float32(2.5), 'flag': True, 'none': None, 'text': 'ä',
             'list': [1, -5, -300, 1 << 40], 'float': 0.5, 'mask': np.array([True])}  # fmt: skip
    saved = {'state': state, **extra, 'batch_stats': {'BatchNorm_0': {'mean': np.zeros(2)}}}
    return Path(checkpoints.save_checkpoint(str(folder), saved, 7))


def test_flax_writes_such_files(tmp_path):
    assert flax_checkpoint(tmp_path).read_bytes() == FLAX.read_bytes()


def test_flax():
    found = read_checkpoint(str(FLAX))
    params = found['state']['params']
    assert torch.equal(params['Block_0']['kernel'], torch.arange(12.0).reshape(3, 4))
    assert torch.equal(params['Block_0']['bias'], torch.ones(2, dtype=torch.float16))
    assert torch.equal(params['cls'], torch.tensor([1.5, 2], dtype=torch.bfloat16))
    assert torch.equal(params['counts'], torch.tensor([[1], [300]]))
    rest = {key: found[key] for key in ('complex', 'scalar', 'flag', 'none', 'text', 'float')}
    assert rest == dict(complex=1 + 2j, scalar=2.5, flag=True, none=None, text='ä', float=0.5)
    assert found['list'] == {'0': 1, '1': -5, '2': -300, '3': 1 << 40}
    assert found['mask'].dtype == torch.bool and found['state']['step'] == 0
    assert torch.equal(found['batch_stats']['BatchNorm_0']['mean'], torch.zeros(2).double())


def test_folders(tmp_path):
    (tmp_path / 'checkpoint_90').write_bytes(FLAX.read_bytes())
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(CheckpointError, match=r'is a folder; name a file in it: checkpoint_90$'):
        read_checkpoint(str(tmp_path))
    (tmp_path / '_METADATA').write_text('{}')
    with pytest.raises(CheckpointError, match=r'folder of Orbax.*msgpack_serialize'):
        read_checkpoint(str(tmp_path))


def test_safetensors_of_any_name(tmp_path):
    for name in ('x.pth', 'model.safetensors', 'pytorch_model.bin'):
        assert torch.equal(read(tmp_path, save({'w': torch.ones(3)}), name)['w'], torch.ones(3))


def test_several_files(tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(save({'a': torch.ones(1), 'unused': torch.ones(1)}))
    torch.save({'b': torch.ones(2), 'c': torch.ones(3)}, tmp_path / 'b.bin')
    names = {'a': 'a.safetensors', 'b': 'b.bin', 'c': 'b.bin'}

    def index(names):
        text = json.dumps({'metadata': {'total_size': 24}, 'weight_map': names})
        return read(tmp_path, text.encode(), 'pytorch_model.bin.index.json')

    assert {k: len(v) for k, v in index(names).items()} == {'a': 1, 'b': 2, 'c': 3}
    with pytest.raises(CheckpointError, match='lacks d, which its index names'):
        index(names | {'d': 'b.bin'})
    with pytest.raises(CheckpointError, match=r'gone\.bin does not exist'):
        index(names | {'d': 'gone.bin'})
    for name in ('../b.bin', '/etc/passwd', '..\\b.bin', '..', ''):
        with pytest.raises(CheckpointError, match=r'expected files of the same|text, which'):
            index(names | {'d': name})


def package(module, name, base=object):
    """A class that other packages have, and that the reader has not; the modules to import."""
    made = type(name, (base,), {'__module__': module, '__qualname__': name})
    inner = types.ModuleType(module)
    setattr(inner, name, made)
    return made, {module: inner, module.partition('.')[0]: types.ModuleType('package')}


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.usefixtures('by')
def test_training_checkpoints(new, tmp_path, monkeypatch):
    node, modules = package('yacs.config', 'CfgNode', dict)
    record, others = package('omegaconf.dictconfig', 'DictConfig')
    settings = node(LR=0.1, MODEL=node(DEPTH=3))
    settings.__dict__['__immutable__'] = True
    config = record()
    config._content = {'lr': 0.1}
    saved = dict(
        epoch=3,
        arch='van_tiny',
        state_dict={'w': torch.ones(2)},
        optimizer=dict(state={0: dict(step=3)}, param_groups=[dict(lr=1e-3, betas=(0.9, 0.99))]),
        args=argparse.Namespace(
            lr=1e-3,
            output=pathlib.Path('/out'),
            device=torch.device('cpu'),
            dtype=torch.float16,
            inner=types.SimpleNamespace(x=1),
            groups=collections.defaultdict(list, a=[1]),
            last=collections.deque([1, 2], 5),
            seen={1, 2},
            frozen=frozenset('a'),
            time=datetime.time(1, 2),
            crop=[range(3), slice(1), fractions.Fraction(1, 2), np.float32],
            run=uuid.UUID(int=1),
            rest=Config(dict(a=1)),
        ),
        settings=settings,
        config=config,
        metric=np.float64(75.4),
        best=[np.float32(1), np.int64(2), np.str_('x'), np.bool_(True)],
        history=np.arange(3),
        counter=collections.Counter('aab'),
    )
    path = tmp_path / 'van_tiny_754.pth.tar'
    with monkeypatch.context() as patch:
        for name, module in (modules | others).items():
            patch.setitem(sys.modules, name, module)
        torch.save(saved, path, _use_new_zipfile_serialization=new)
    found = read_checkpoint(str(path))
    assert list(weights_of(found, '')) == ['w']
    args = vars(found['args'])
    assert args['lr'] == 1e-3 and args['output'] == pathlib.PurePosixPath('/out')
    assert args['groups'] == {'a': [1]} and args['last'] == [1, 2]
    assert args['inner'].x == 1 and args['dtype'] == torch.float16
    assert found['settings'] == {'LR': 0.1, 'MODEL': {'DEPTH': 3}}
    assert type(found['settings']) is not node and found['config']._content == {'lr': 0.1}
    assert found['best'] == saved['best'] and found['metric'] == 75.4
    assert found['history'].tolist() == [0, 1, 2]


def test_classes_of_the_file_itself_are_refused(tmp_path):
    """An enumeration of a training program is code of it, as any other class."""
    torch.save(dict(w=torch.ones(1), args=argparse.Namespace(x=Colour.RED)), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'Colour that could run code'):
        read_checkpoint(str(tmp_path / 'x.pth'))


def test_other_numpy(tmp_path):
    """A file of NumPy 1 names its modules otherwise than one of NumPy 2, and the other way."""
    torch.save(dict(w=torch.ones(1), best=np.float64(2)), tmp_path / 'x.pth',
               _use_new_zipfile_serialization=False)  # fmt: skip
    content = (tmp_path / 'x.pth').read_bytes()
    here, there = b'numpy._core.', b'numpy.core.'
    here, there = (here, there) if here in content else (there, here)
    assert read(tmp_path, content.replace(here, there), 'y.pth')['best'] == 2


def test_tensors():
    assert tensor_of(b'', 'bfloat16', (0, 2)).shape == (0, 2)
    want = torch.arange(6.0).reshape(2, 3)
    columns = np.arange(6, dtype='f4').reshape(2, 3).tobytes('F')
    assert torch.equal(tensor_of(columns, 'float32', [2, 3], 'F'), want)
    for data, dtype, shape in (
        (b'1234', 'f4', (2,)), (b'12345678', 'f4', (1,)), (b'1234', 'f4', (-1,)),
        (b'1234', 'f4', (1.0,)),
        (b'', 'f4', (0,) * 40),
        (b'1234', 'O', (1,)), (b'1234', 'i2,i2', (1,)), (b'1234', 'V4', (1,)),
        (b'1234', 'xyz', (1,)),
        (b'12345678', 'M8[s]', (1,)), (bytes(16), 'g', (1,)), (b'12', '>bfloat16', (1,)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match='array'):
            tensor_of(data, dtype, shape)
