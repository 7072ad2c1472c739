"""Checksums of checkpoints: what they cover, and that nothing damaged is loaded."""

import os
import random
import shutil
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from hybrid_mm.checkpoint_files import checksum
from hybrid_mm.checkpoint_files.integrity import _older_checksum
from hybrid_mm.checkpoints import CheckpointError, read_checkpoint
from hybrid_mm.compat import safe_loading


def test_checksum_sees_every_tensor_and_its_place():
    state = dict(state_dict=dict(a=torch.arange(4.0), b=torch.ones(())), optimizer=dict(lr=0.1))
    plain = checksum(state)
    assert plain == checksum(dict(state, checksum=plain))
    for part in (
        dict(state_dict=dict(a=torch.arange(4.0).view(2, 2), b=torch.ones(()))),
        dict(state_dict=dict(a=torch.arange(4.0), b=torch.zeros(()))),
        dict(state_dict=dict(a=torch.arange(4.0), c=torch.ones(()))),
        dict(state_dict=dict(a=torch.arange(4), b=torch.ones(()))),
        dict(optimizer=dict(lr=0.2)),
    ):
        assert checksum(state | part) != plain
    low = dict(state_dict=dict(a=torch.ones(2, dtype=torch.bfloat16), b=torch.empty(0)))
    assert checksum(low) == checksum(low)


def test_checksum_sees_large_tensors_to_their_ends():
    """Tensors larger than any block that is hashed or read at once, of many layouts and types."""
    for tensor in (
        torch.arange(300.0),
        torch.arange(1_200_003) % 251,
        torch.arange(70_000, dtype=torch.float32).to(torch.bfloat16).view(35_000, 2),
        torch.arange(90_000.0).view(300, 300).t(),
        (torch.arange(5000) % 3 == 0),
    ):
        for place in ('state_dict', 'optimizer'):
            state = dict(state_dict=dict(w=tensor), optimizer=dict(lr=0.1))
            if place == 'optimizer':
                state = dict(state_dict={}, optimizer=dict(state=[dict(m=(tensor,))]))
            plain = checksum(state)
            for index in (0, tensor.numel() // 3, tensor.numel() - 1):
                where = np.unravel_index(index, tuple(tensor.shape))
                before = tensor[where].clone()
                tensor[where] = ~before if tensor.dtype == torch.bool else before + 512
                assert checksum(state) != plain, (tensor.dtype, place, index)
                tensor[where] = before
            assert checksum(state) == plain


def training_state():
    """All that a checkpoint of a training holds, with values of every type that it may have."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    info = OrderedDict(iter=4, best_score=np.float32(23.2), flags=np.array([True, False]))
    return dict(
        meta=dict(iter=4, epoch=0, seed=3, time='20260101_000000', cfg='model = dict()\n' * 50),
        state_dict=OrderedDict(w=torch.arange(600.0).view(20, 30), n=torch.tensor(3)),
        ema_state_dict=OrderedDict(w=torch.ones(8, 5)),
        message_hub=dict(log_scalars=OrderedDict(loss=history), runtime_info=info),
        optimizer=dict(state={0: dict(m=torch.ones(20, 30))}, param_groups=[dict(lr=0.1)]),
        param_schedulers=[dict(last_step=4, base_values=[0.1], milestones=(8, 11), name=None)],
    )


def changes():
    """Names of one change each, and functions that make them."""

    def history(c):
        c['message_hub']['log_scalars']['loss']._log_history[1] += 1

    def at(*keys, value):
        def change(c):
            *outer, last = keys
            for key in outer:
                c = c[key]
            c[last] = value

        return change

    yield 'history', history
    yield 'step', at('meta', 'iter', value=5)
    yield 'config', at('meta', 'cfg', value='model = None\n')
    yield 'scheduler', at('param_schedulers', 0, 'last_step', value=5)
    yield 'tuple', at('param_schedulers', 0, 'milestones', value=[8, 11])
    yield 'averages', at('ema_state_dict', 'w', value=torch.zeros(8, 5))
    yield 'message hub', at('message_hub', 'runtime_info', 'flags', value=np.array([True, True]))
    yield 'type', at('message_hub', 'runtime_info', 'iter', value=4.0)
    yield 'array', at('message_hub', 'runtime_info', 'best_score', value=np.float64(23.2))
    yield 'more', at('more', value={})


@pytest.mark.usefixtures('by')
def test_checksum_covers_everything(tmp_path):
    state = training_state()
    plain = checksum(state)
    torch.save(state | dict(checksum=plain), tmp_path / 'x.pth')
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    assert checksum(loaded) == checksum(state) == plain  # saving has changed nothing
    for name, change in changes():
        changed = training_state()
        change(changed)
        assert checksum(changed) != plain, name
        torch.save(changed | dict(checksum=plain), tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match='does not match its checksum: it is damaged, or'):
            read_checkpoint(str(tmp_path / 'x.pth'))
        torch.save(changed, tmp_path / 'x.pth')  # who changes it on purpose
        read_checkpoint(str(tmp_path / 'x.pth'))


@pytest.mark.usefixtures('by')
def test_checksum_of_older_versions(tmp_path):
    """It covers weights and optimizer; the CRC-32 of the archive covers the rest."""
    state = training_state()
    path = tmp_path / 'x.pth'
    torch.save(state | dict(checksum=_older_checksum(state)), path)
    read_checkpoint(str(path))
    known = dict(
        state_dict=dict(w=torch.arange(3.0)), optimizer=dict(lr=0.1, on=[True, None]), meta=3
    )
    assert _older_checksum(known) == 'b30feb07a819aec484f58b2a0a9702e2'
    state['optimizer']['param_groups'][0]['lr'] = 0.2
    torch.save(state | dict(checksum=_older_checksum(training_state())), path)
    with pytest.raises(CheckpointError, match='does not match its checksum'):
        read_checkpoint(str(path))
    state = training_state()
    torch.save(state | dict(checksum=_older_checksum(state)), path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(8, 5).numpy().tobytes()) + 3] ^= 1  # in the averages
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(str(path))


def test_a_checkpoint_is_verified_once(tmp_path, monkeypatch):
    """A run reads a file twice, to check it and to load it; a changed one is another one."""
    path, seen = tmp_path / 'x.pth', []
    module = 'hybrid_mm.checkpoint_files.loading.matches'
    monkeypatch.setattr(module, lambda checkpoint: not seen.append(1))
    torch.save(dict(w=torch.ones(1)), path)
    for _ in range(2):
        read_checkpoint(str(path))
    assert len(seen) == 1
    time.sleep(0.02)
    torch.save(dict(w=torch.ones(1)), path)
    read_checkpoint(str(path))
    assert len(seen) == 2


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'set_crc32_options'), reason='torch >= 2.6 leaves them out'
)
def test_files_without_crc(tmp_path):
    """torch can be told to write none; the file is a good one."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(w=torch.ones(3)), tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(str(tmp_path / 'x.pth'))['w'], torch.ones(3))


DAMAGES = ('bit', 'bit', 'bit', 'cut', 'zeros', 'swap')


def damaged(data, generator, kind):
    """One damage of a file: a bit, its end, a block of zeros, its halves swapped."""
    data, place = bytearray(data), generator.randrange(1, len(data))
    if kind == 'bit':
        data[place] ^= 1 << generator.randrange(8)
    elif kind == 'cut':
        del data[place:]
    elif kind == 'zeros':
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    else:
        data = data[place:] + data[:place]
    return bytes(data)


@pytest.mark.parametrize('form', ['whole', 'older', 'none', 'none, read by ours'])
def test_damaged_files_are_refused_with_one_message(form, tmp_path, monkeypatch):
    """Or they load as they were, where nothing of the content is hit."""
    if form.endswith('ours'):
        monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    generator, state = random.Random(form), training_state()
    sums = dict(whole=checksum, older=_older_checksum).get(form)
    expected = checksum(state)
    if sums:
        state['checksum'] = sums(state)
    torch.save(state, tmp_path / 'good.pth')
    good, path = (tmp_path / 'good.pth').read_bytes(), tmp_path / 'x.pth'
    refused = 0
    for i in range(500):
        path.unlink(missing_ok=True)
        path.write_bytes(damaged(good, generator, DAMAGES[i % len(DAMAGES)]))
        os.utime(path, (i, i))
        try:
            assert checksum(read_checkpoint(str(path))) == expected
        except CheckpointError as error:
            assert '\n' not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 300
    shutil.copy(tmp_path / 'good.pth', path)
    assert checksum(read_checkpoint(str(path))) == expected
