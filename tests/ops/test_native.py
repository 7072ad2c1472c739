"""Kernels in C: whatever is wrong with the folder that keeps them, a run goes on."""

import os
import shutil
import stat
import sys
import time
import warnings

import pytest
import torch

from hybrid_mm.ops import native

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith(('linux', 'darwin')) or shutil.which('cc') is None,
    reason='no C compiler here',
)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a kernel that returns 3, and tell whether it could be."""
    (tmp_path / 'tiny.c').write_text('REAL three(void) { return 3; }')
    monkeypatch.setattr(native, '__file__', str(tmp_path / '__init__.py'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('CC', raising=False)

    def load():
        native.load.cache_clear()
        library = native.load('tiny', torch.float32)
        return library is not None and hasattr(library, 'three')

    yield load
    native.load.cache_clear()


@pytest.fixture
def kept(tmp_path):
    """The libraries in the cache."""
    return lambda: list((tmp_path / 'cache' / 'hybrid_mm' / 'native').glob('*'))


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.mark.parametrize('damage', ['half', 'empty', 'text', 'other'])
def test_a_damaged_library_is_made_again(damage, load, kept, silent):
    assert load()
    (library,) = kept()
    whole = library.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    parts = dict(half=whole[: len(whole) // 2], empty=b'', text=b'no library', other=changed)
    library.unlink()  # it is mapped into this process
    library.write_bytes(parts[damage])
    assert load()
    (library,) = kept()
    assert library.read_bytes() == whole


def test_a_library_that_somebody_else_may_have_written_is_made_again(load, kept, silent):
    assert load()
    (library,) = kept()
    library.chmod(0o777)
    assert load()
    assert not kept()[0].stat().st_mode & stat.S_IWOTH


@pytest.mark.parametrize('place', ['cache', 'cache/hybrid_mm', 'cache/hybrid_mm/native'])
def test_a_file_in_the_place_of_the_cache(place, load, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    with pytest.warns(UserWarning, match=r'tiny-float-.*cannot be kept .*compiled again'):
        assert load()


def test_a_folder_that_is_not_ours(load, kept, monkeypatch, tmp_path):
    make, kept_in = native.tempfile.TemporaryDirectory, [tmp_path / 'cache/hybrid_mm/native']

    def refuse(*args, dir=None, **kwargs):
        if dir in kept_in:
            raise PermissionError(f'not yours: {dir}')
        return make(*args, **kwargs)

    monkeypatch.setattr(native.tempfile, 'TemporaryDirectory', refuse)
    with pytest.warns(UserWarning, match='cannot be kept .*not yours'):
        assert load()
    assert not kept()


@pytest.mark.parametrize('home', ['no', 'relative'])
def test_without_a_home_folder(home, load, monkeypatch):
    def nobody():
        raise RuntimeError('Could not determine home directory.')

    if home == 'no':
        monkeypatch.delenv('XDG_CACHE_HOME')
        monkeypatch.setattr(native.Path, 'home', nobody)
    else:
        monkeypatch.setenv('XDG_CACHE_HOME', 'somewhere')
    with pytest.warns(UserWarning, match='no home folder; XDG_CACHE_HOME'):
        assert load()
    assert not os.path.exists('somewhere')


def test_compilers_with_arguments(load, kept, monkeypatch, silent):
    assert load()
    monkeypatch.setenv('CC', 'cc -DREAL=double -UREAL')
    assert load()
    assert len(kept()) == 2
    for none in ("cc 'without end", 'no-such-compiler -O1'):
        monkeypatch.setenv('CC', none)
        assert not load()


def test_a_compiler_that_prints_what_is_no_text(load, monkeypatch, tmp_path):
    compiler = tmp_path / 'compiler'
    compiler.write_text("#!/bin/sh\nprintf 'caf\\351' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv('CC', str(compiler))
    with pytest.warns(UserWarning, match='could not be compiled with .*caf'):
        assert not load()


def script(path, text):
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('made', ['nothing', 'no library'])
def test_a_compiler_that_says_it_is_done(made, load, monkeypatch, tmp_path):
    """And has written nothing, or something else; also a second time, from the cache."""
    write = 'while [ "$1" != -o ]; do shift; done; echo text > "$2"'
    command = write if made == 'no library' else 'exit 0'
    monkeypatch.setenv('CC', str(script(tmp_path / 'compiler', command)))
    for _ in range(2):
        with pytest.warns(UserWarning, match='could not be compiled with'):
            assert not load()


def test_a_compiler_that_hangs(load, monkeypatch, tmp_path):
    monkeypatch.setattr(native, '_PATIENCE', 0.2)
    monkeypatch.setenv('CC', str(script(tmp_path / 'compiler', 'exec sleep 600')))
    begun = time.monotonic()
    with pytest.warns(UserWarning, match='could not be compiled with .*timed out'):
        assert not load()
    assert time.monotonic() - begun < 300


@pytest.mark.parametrize('damage', ['owner', 'folder', 'link'])
def test_what_is_loaded_is_a_file_of_the_user(damage, load, kept, monkeypatch):
    assert load()
    (library,) = kept()
    if damage == 'owner':
        uid = os.getuid
        monkeypatch.setattr(os, 'getuid', lambda: uid() + 1)  # the file is of another user
        if uid() == 0:  # root is trusted
            os.chown(library, 7, -1)
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter('always')
            assert load()  # compiled again
        assert not noted
        return
    library.unlink()
    if damage == 'folder':
        library.mkdir()
        with pytest.warns(UserWarning, match='cannot be kept'):
            assert load()
    else:
        library.symlink_to('nowhere')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert load()


def test_a_cache_that_anybody_may_write_to(load, kept, tmp_path):
    """Somebody else can put a library in the place of one that was looked at."""
    folder = tmp_path / 'cache' / 'hybrid_mm' / 'native'
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match=r'cannot be kept .*anybody may write to'):
        assert load()
    assert not kept()
    folder.chmod(0o1777)  # as /tmp: nobody can replace what is another's
    assert load() and len(kept()) == 1


def test_libraries_are_on_the_disk_before_they_have_their_name(load, kept, monkeypatch):
    sync, seen = os.fsync, []

    def fsync(descriptor):
        seen.append([p.name for p in kept() if p.suffix == '.so'])
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    assert load()
    assert seen == [[]] and [p.suffix for p in kept()] == ['.so']
