"""What people give as a checkpoint that is none: one message each, with what it seems to be."""

import gzip
import io
import os
import pickle
import re
import socket
import tarfile
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save

from hybrid_mm.checkpoints import CheckpointError, read_checkpoint


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def archive(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return data.getvalue()


def tar(*names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w') as opened:
        for name in names:
            opened.addfile(tarfile.TarInfo(name))
    return data.getvalue()


def saved(content, **options):
    data = io.BytesIO()
    torch.save(content, data, **options)
    return data.getvalue()


def script():
    data = io.BytesIO()
    with warnings.catch_warnings():  # new releases warn of TorchScript
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), data)
    return data.getvalue()


GOOD = saved(dict(w=torch.ones(300)))
OLD = saved(dict(w=torch.ones(300)), _use_new_zipfile_serialization=False)
PAGE = b'<!DOCTYPE html>\n<html><head><title>404</title></head></html>'
LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n'
FILES = {
    'empty': (b'', 'is empty'),
    'zeros': (bytes(9000), 'zero bytes only'),
    'png': (b'\x89PNG\r\n\x1a\n' + b'\0\1\2' * 9, r'an image \(PNG\)'),
    'jpeg': (b'\xff\xd8\xff\xe0' + b'\0' * 9, r'an image \(JPEG\)'),
    'webp': (b'RIFF\x10\0\0\0WEBPVP8 ', r'an image \(WebP\)'),
    'page': (PAGE, 'a web page'),
    'page behind blanks': (b'\xef\xbb\xbf\n  <html>\n', 'a web page'),
    'lfs': (LFS, 'a pointer of Git LFS; fetch the file itself with `git lfs pull`'),
    'config': (b"_base_ = ['a.py']\n" * 40, r'text, which begins with .*_base_'),
    'json': ('{"é": 3}'.encode() * 99, 'text, which begins with'),
    'text like a pickle': (b'(dict of lists)\n' * 9, 'text, which begins with'),
    'gzip': (gzip.compress(GOOD), 'gzip; unpack it first'),
    'tar': (tar('a.pth', 'b.pth'), r'a tar archive \(a.pth, b.pth\)'),
    'old tar': (tar('sys_info', 'pickle', 'storages', 'tensors'), 'format of torch 0.1'),
    'zip': (archive(**{'a.pth': b'x', 'b.py': b'y'}), r'other files \(a.pth, b.py\)'),
    'empty zip': (archive(), 'it is empty'),
    'array': (b'\x93NUMPY\x01\0' + bytes(90), r'a single NumPy array; .* read from an \.npz'),
    'script': (script, r'TorchScript archive.*state_dict\(\)'),
    'pickle': (
        pickle.dumps(io.StringIO),
        'a pickle that torch did not write; it names _io.StringIO',
    ),
    'safetensors': (save(dict(w=torch.ones(3)))[:-3], r'truncated or damaged \(safetensors: '),
    'keras': (b'\x89HDF\r\n\x1a\n' + bytes(90), 'HDF5, as Keras writes it'),
    'onnx': (b'\x08\x08\x12\x07pytorch\x1a\x052.0.0' + bytes(90), 'an ONNX model'),
    'noise': (bytes(range(1, 256)) * 4, 'of no format that can be read'),
    'truncated': (GOOD[:-30], r'\(\d+ bytes\) cannot be read: it is truncated or damaged'),
    'first half': (GOOD[: len(GOOD) // 2], 'truncated or damaged'),
    'old truncated': (OLD[:-30], 'truncated or damaged'),
    'old first half': (OLD[:60], 'truncated or damaged'),
    'list': (saved([1, 2]), 'holds a list; expected a dict of weights'),
    'unsafe type': (saved(dict(x=io.StringIO)), r'holds \S*StringIO that could run code'),
}


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    text = str(caught.value)
    assert '\n' not in text and str(path) in text
    return text


@pytest.mark.parametrize('kind', FILES)
def test_foreign_files(kind, tmp_path):
    content, expected = FILES[kind]
    path = tmp_path / 'x.pth'
    path.write_bytes(content() if callable(content) else content)
    text = refused(path)
    assert re.search(expected, text), text


def test_files_that_run_code_do_not(tmp_path):
    for name, options in (('x.pth', {}), ('y.pth', dict(_use_new_zipfile_serialization=False))):
        torch.save(dict(x=RunsCode(tmp_path / 'ran')), tmp_path / name, **options)
        text = refused(tmp_path / name)
        assert 'system that could run code when loaded, and was not loaded' in text
        assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in text
    assert not (tmp_path / 'ran').exists()


def test_what_is_no_file(tmp_path):
    """None of them is opened: a pipe would wait for its other end."""
    os.mkfifo(tmp_path / 'pipe.pth')
    assert 'it is a named pipe' in refused(tmp_path / 'pipe.pth')
    assert 'it is a folder' in refused(tmp_path)
    torch.save({}, tmp_path / 'epoch_1.pth')
    assert 'it is a folder; name a file in it: epoch_1.pth, pipe.pth' in refused(tmp_path)
    assert 'it is a device' in refused('/dev/zero')
    with socket.socket(socket.AF_UNIX) as listener:
        path = os.path.relpath(tmp_path / 'socket')
        listener.bind(path)
        assert 'it is a socket' in refused(path)
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'gone.pth')
    assert f'is a link to {tmp_path}/gone.pth, which does not exist' in refused(
        tmp_path / 'link.pth'
    )
    (tmp_path / 'loop.pth').symlink_to(tmp_path / 'loop.pth')
    assert 'cannot be opened: Too many levels' in refused(tmp_path / 'loop.pth')
    assert 'does not exist' in refused(tmp_path / 'epoch_1.pth' / 'x.pth')
    assert 'cannot be opened: File name too long' in refused(tmp_path / ('x' * 300))
    with pytest.raises(CheckpointError, match='cannot be opened: embedded null byte'):
        read_checkpoint('a\0b')


@pytest.mark.parametrize('content', [GOOD, OLD], ids=['new', 'old'])
def test_good_files(content, tmp_path):
    for name in ('x.pth', 'x.pth.tar', 'x', 'ä ö.bin'):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_checkpoint(str(tmp_path / name))['w'], torch.ones(300))
