"""B5: packages that refuse mmcv 2.2 take it after ``import hybrid_mm``, which tells no one else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFUSES = """
import mmcv
seen = mmcv.__version__
assert seen < '2.2.0', f'MMCV=={seen} is used but incompatible'
"""


@pytest.fixture
def packages(tmp_path):
    """Folder with an mmcv of a version, and an mmdet that refuses 2.2.0 and later."""

    def write(version):
        for name, text in (('mmcv', f'__version__ = {version!r}'), ('mmdet', REFUSES)):
            (tmp_path / name).mkdir()
            (tmp_path / name / '__init__.py').write_text(text)
        return tmp_path

    return write


def start(words, folder, status=0, **variables):
    path = os.pathsep.join(map(str, [folder, ROOT]))
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': path, **variables},
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ('version', 'seen'),
    [('2.2.0', '2.1.0'), ('2.2.1', '2.1.0'), ('2.1.0', '2.1.0'), ('2.0.1', '2.0.1')],
)
def test_mmcv_is_taken_and_keeps_its_version(packages, version, seen):
    code = 'import hybrid_mm, mmdet, mmcv; print(mmdet.seen, mmcv.__version__)'
    assert start(['-c', code], packages(version)) == f'{seen} {version}\n'


def test_later_releases_stay_refused(packages):
    out = start(['-c', 'import hybrid_mm, mmdet'], packages('2.3.0'), status=1)
    assert out.endswith('AssertionError: MMCV==2.3.0 is used but incompatible\n')


def test_version_is_restored_where_the_import_fails(packages):
    folder = packages('2.2.0')
    (folder / 'mmdet/__init__.py').write_text('import mmcv; raise OSError(mmcv.__version__)')
    code = """
import hybrid_mm, mmcv
try:
    import mmdet
except OSError as error:
    print(error, mmcv.__version__)
"""
    assert start(['-c', code], folder) == '2.1.0 2.2.0\n'


def test_a_missing_mmcv_is_reported_by_the_package(packages):
    folder = packages('2.2.0')
    (folder / 'mmcv/__init__.py').write_text('raise ImportError("no _ext")')
    out = start(['-c', 'import hybrid_mm, mmdet'], folder, status=1)

    assert out.endswith('ImportError: no _ext\n')


def test_program_of_others(packages):
    """``python -m hybrid_mm run``, in its children too, with another ``sitecustomize`` there."""
    folder = packages('2.2.0')
    (folder / 'sitecustomize.py').write_text('import os; os.environ["MINE"] = "kept"')
    (folder / 'train.py').write_text(
        'import mmdet, os, subprocess, sys\n'
        'print(mmdet.seen, os.environ["MINE"], sys.argv[1:], flush=True)\n'
        'subprocess.run([sys.executable, "-c", "import mmdet; print(mmdet.seen)"], check=True)\n'
    )
    words = ['mine.py', '--debug', '--cfg-options', 'a=1']
    expected = f'2.1.0 kept {words}\n2.1.0\n'
    assert 'incompatible' in start(['train.py'], folder, status=1)
    assert start(['-m', 'hybrid_mm', 'run', 'python', 'train.py', *words], folder) == expected
    assert start(['-m', 'hybrid_mm', 'run', 'train.py', *words], folder) == expected


def test_program_that_does_not_exist(packages):
    out = start(['-m', 'hybrid_mm', 'run', 'trian', 'mine.py'], packages('2.2.0'), status=2)
    assert out.startswith('error: there is no program trian;')
    assert 'required: PROGRAM' in start(['-m', 'hybrid_mm', 'run'], ROOT, status=2)


def test_program_of_the_environment_comes_first(packages, tmp_path):
    """That beside the Python, whatever the shell has."""
    folder = packages('2.2.0')
    (folder / 'bin').mkdir()
    for name in ('python', 'mim'):
        (folder / 'bin' / name).symlink_to(sys.executable)
    other = folder / 'other'
    other.mkdir()
    (other / 'mim').write_text('#!/bin/sh\necho wrong')
    (other / 'mim').chmod(0o755)
    code = 'import sys; sys.executable = sys.argv.pop(1); import hybrid_mm.__main__ as m; m.main()'
    words = ['-c', code, str(folder / 'bin/python'), 'run', 'mim', '-c', 'print("right")']
    assert start(words, folder, PATH=f'{other}{os.pathsep}{os.environ["PATH"]}') == 'right\n'
