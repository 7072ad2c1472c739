"""Pickles of predictions: what tools/test.py writes is read, nothing is run."""

import os
import pickle

import mmengine
import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults

from hybrid_mm.errors import UserError
from hybrid_mm.run.predictions import read_predictions, safe_pickles


class Call:
    """Unpickled without care, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def predictions():
    instances = dict(
        bboxes=torch.tensor([[1.0, 2, 3, 4]]),
        scores=torch.tensor([0.5]).bfloat16(),
        labels=torch.tensor([3]),
        masks=[dict(size=[4, 4], counts=b'0\xff4')],
    )
    arrays = dict(
        size=torch.Size((4, 4)),
        a=np.arange(6.0).reshape(2, 3),
        s=np.float64(0.5),
        b=np.array(['x']),
        n=None,
    )
    return [dict(img_id=7, ori_shape=(4, 4), dtype=torch.float16, **arrays,
                 pred_instances=instances)]  # fmt: skip


def check(found):
    (item,), (expected,) = found, predictions()
    assert item.keys() == expected.keys()
    for key in ('img_id', 'ori_shape', 'dtype', 's', 'n'):
        assert item[key] == expected[key] and type(item[key]) is type(expected[key])
    np.testing.assert_array_equal(item['a'], expected['a'])
    assert item['b'].tolist() == ['x']
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(item['pred_instances'][key], expected['pred_instances'][key])
    assert item['pred_instances']['masks'] == expected['pred_instances']['masks']


@pytest.mark.parametrize('protocol', range(6))
def test_all_that_predictions_are_made_of(tmp_path, protocol):
    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps(predictions(), protocol))
    found = read_predictions(path)
    check(found)
    assert type(found[0]['size']) is torch.Size


def test_what_mmengine_writes(tmp_path):
    metric = DumpResults(str(tmp_path / 'p.pkl'))
    metric.process({}, predictions())
    metric.evaluate(1)
    check(read_predictions(tmp_path / 'p.pkl'))


def test_no_code_is_run(tmp_path):
    """Neither by the pickle nor by one inside of the bytes of a tensor."""
    ran, path = tmp_path / 'ran', tmp_path / 'p.pkl'
    inner = pickle.dumps(Call(os.mkdir, str(ran)))
    for content, name in (
        (Call(os.mkdir, str(ran)), r'posix\.mkdir'),
        (Call(eval, f'__import__("os").mkdir("{ran}")'), r'builtins\.eval'),
        (Call(getattr, np.ndarray, 'tofile'), r'builtins\.getattr'),
        (Call(torch.load, str(path)), r'torch\S*\.load'),
        (Call(torch.storage._load_from_bytes, inner), 'not a pickle of predictions'),
    ):
        path.write_bytes(pickle.dumps([content]))
        with pytest.raises(UserError, match=rf'p\.pkl .*{name}') as caught:
            read_predictions(path)
        assert '\n' not in str(caught.value)
        with safe_pickles('x.pkl'), pytest.raises(UserError, match=rf'^x\.pkl .*{name}'):
            mmengine.load(path)
        assert not ran.exists()
    with safe_pickles():
        mmengine.dump(predictions(), path)
        check(mmengine.load(path))


@pytest.mark.parametrize('protocol', range(6))
def test_the_order_of_bytes(tmp_path, protocol):
    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps([np.arange(3.0), np.arange(3.0).astype('>f8')], protocol))
    for found in read_predictions(path):
        np.testing.assert_array_equal(found, np.arange(3.0))


class Type:
    """Pickles a type of numbers with a state of its own."""

    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(
    ('code', 'state'),
    [
        ('V8', (3, '|', None, ('a',), {'a': (np.dtype('O'), 0)}, 8, 1, 0)),
        ('O8', (3, '|', None, None, None, -1, -1, 63)),
        ('S8', (3, '|', None, None, None, 1000, 1, 0)),
    ],
)
def test_a_type_cannot_become_another(tmp_path, code, state, protocol):
    """Of raw bytes NumPy would make references to objects, or read beyond them."""
    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps([Type(code, state)], protocol))
    with pytest.raises(UserError, match=r'p\.pkl is not a pickle of predictions, or is'):
        read_predictions(path)


def test_a_type_of_numpy_ignores_a_state(tmp_path):
    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps([Type('f8', (3, '<', None, None, None, 4, 4, 0))]))
    (found,) = read_predictions(path)
    assert found == np.dtype('f8') and found.itemsize == 8


def test_damaged_files(tmp_path):
    whole, path = pickle.dumps(predictions()), tmp_path / 'p.pkl'
    rng = np.random.default_rng(0)
    flipped = bytearray(whole)
    damaged = [b'', b'text', b'\x80\x05', whole[:-1], whole[: len(whole) // 2]]
    for place in rng.integers(0, len(whole), 40):
        flipped[place] ^= 1 << rng.integers(0, 8)
        damaged.append(bytes(flipped))
    for number, content in enumerate(damaged):
        path.write_bytes(content)
        if number < 5:
            with pytest.raises(UserError, match=r'p\.pkl is not a pickle of predictions, or is'):
                read_predictions(path)
            continue
        try:
            read_predictions(path)  # a changed number is read
        except UserError as error:
            assert str(path) in str(error)
    for bad, text in ((tmp_path, 'Is a directory'), (tmp_path / 'none', 'No such file')):
        with pytest.raises(UserError, match=f'cannot be read: {text}'):
            read_predictions(bad)
