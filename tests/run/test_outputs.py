"""Places of results: refused before the work begins, never left half written."""

import os

import pytest
import torch

from hybrid_mm.errors import UserError
from hybrid_mm.run.outputs import (
    check_output_file,
    check_output_folder,
    check_picture,
    replacing,
)


@pytest.fixture
def closed(monkeypatch):
    """The system refuses new files, as on a disk that is mounted read-only."""

    def refuse(*args, dir=None, **kwargs):
        raise OSError(30, 'Read-only file system', str(dir))

    monkeypatch.setattr('hybrid_mm.run.outputs.tempfile.TemporaryFile', refuse)


def test_folders(tmp_path):
    file = tmp_path / 'file'
    file.write_text('x')
    for good in (tmp_path, tmp_path / 'new' / 'folder'):
        assert check_output_folder(good) == good
    assert not (tmp_path / 'new').exists()  # nothing is made before the work
    with pytest.raises(UserError, match=r'--out .*file is a file; expected a folder'):
        check_output_folder(file)
    with pytest.raises(UserError, match=r'--x .*file/a/b cannot be made: .*file is a file'):
        check_output_folder(file / 'a' / 'b', '--x')


def test_files(tmp_path):
    file = tmp_path / 'a.json'
    file.write_text('x')
    (tmp_path / 'link.json').symlink_to(file)
    assert check_output_file(file, suffixes=['.json', '.yml']) == file
    check_output_file(tmp_path / 'new' / 'b.JSON', suffixes=['.json'])
    for bad, message in (
        (dict(path=tmp_path), 'is a folder; expected a file'),
        (dict(path=f'{tmp_path}/x/'), 'is a folder; expected a file'),
        (dict(path='m.txt', suffixes=['.json', '.yml']), r'must end with \.json or \.yml'),
        (dict(path=file / 'x.json'), r'a\.json is a file; expected a folder'),
        (dict(path=tmp_path / 'link.json', inputs=['', file]), 'would replace .*which is read'),
    ):
        with pytest.raises(UserError, match=message):
            check_output_file(**bad)
    check_picture(tmp_path / 'x.png')
    for name in ('x', 'x.xyz'):
        with pytest.raises(UserError, match=r'the name must end with .*\.png'):
            check_picture(tmp_path / name)


def test_a_disk_that_is_read_only(tmp_path, closed):
    for check in (check_output_folder, check_output_file):
        with pytest.raises(UserError, match=r'--out .* cannot be written: Read-only file system'):
            check(tmp_path / 'a')


def test_files_are_replaced_when_they_are_complete(tmp_path):
    file = tmp_path / 'new' / 'a.pth'
    with replacing(file) as path:
        assert path.suffix == '.pth' and not file.exists()
        torch.save(dict(a=1), path)
    assert torch.load(file) == dict(a=1)

    def fails(error):
        with replacing(file) as path:
            path.write_text('half')
            raise error

    full = RuntimeError('[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed\n x')
    for error, kind, text in (
        (OSError(28, 'No space left on device'), UserError, r'a\.pth cannot be written: No space'),
        (full, UserError, r'a\.pth cannot be written; is the disk full'),
        (RuntimeError('other'), RuntimeError, '^other$'),
        (KeyboardInterrupt(), KeyboardInterrupt, ''),
    ):
        with pytest.raises(kind, match=text):
            fails(error)
        assert torch.load(file) == dict(a=1)
        assert os.listdir(file.parent) == ['a.pth']
