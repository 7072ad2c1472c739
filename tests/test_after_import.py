"""``import hybrid_mm`` takes no time, and its workarounds are there when they are needed."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hybrid_mm.compat import after_import

ROOT = Path(__file__).parents[1]
# what the workarounds change, without torch
STAND_IN = {
    'mmengine/__init__.py': '',
    'mmengine/config/__init__.py': '',
    'mmengine/config/utils.py': 'MODULE2PACKAGE = {}\n',
    'mmengine/runner/__init__.py': '',
    'mmengine/runner/checkpoint.py': """
class CheckpointLoader:
    loaders = {}

    @classmethod
    def register_scheme(cls, prefixes, loader, force):
        cls.loaders.update(dict.fromkeys((prefixes,) if isinstance(prefixes, str) else prefixes))


name = __name__
""",
}
CHECK = """
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner.checkpoint import CheckpointLoader
assert 'hybrid_mm' in MODULE2PACKAGE
assert sorted(CheckpointLoader.loaders) == ['', 'http://', 'https://', 'hybrid_mm://']
"""


def run(code, *paths):
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*paths, ROOT]))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def mmengine(tmp_path_factory):
    """Folder of a package that takes no time to import."""
    folder = tmp_path_factory.mktemp('stand_in')
    for name, text in STAND_IN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_nothing_heavy_is_imported():
    heavy = ('torch', 'numpy', 'mmengine', 'mmcv', 'yaml', 'argparse', 'importlib.metadata')
    code = f'import sys, hybrid_mm; print([name for name in {heavy} if name in sys.modules])'
    assert run(code) == '[]\n'


def test_a_broken_mmengine_is_reported_by_its_own_import(tmp_path):
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine/__init__.py').write_text('raise OSError("libcudart.so.13 is missing")')
    code = """
import hybrid_mm
try:
    import mmengine.runner.checkpoint
except OSError as error:
    print(error)
"""
    assert run(code, tmp_path) == 'libcudart.so.13 is missing\n'


@pytest.mark.parametrize(
    'code',
    [
        'import hybrid_mm' + CHECK,
        CHECK.partition('assert')[0] + 'import hybrid_mm' + CHECK,
        # one of the two before
        'import mmengine.config.utils\nimport hybrid_mm' + CHECK,
        # looking for a module is not importing it
        """
import hybrid_mm
from importlib.util import find_spec
import inspect, copy
spec = find_spec('mmengine.runner.checkpoint')
assert 'class CheckpointLoader' in spec.loader.get_source(spec.name)
copy.copy(spec.loader)
import sys
assert spec.name not in sys.modules
"""
        + CHECK
        + """
from mmengine.runner import checkpoint
assert type(checkpoint.__loader__).__name__ == 'SourceFileLoader'
assert checkpoint.__loader__ is checkpoint.__spec__.loader
assert 'class CheckpointLoader' in inspect.getsource(checkpoint)
""",
        # read anew
        'import hybrid_mm, importlib'
        + CHECK
        + """
import mmengine.runner.checkpoint
MODULE2PACKAGE.clear()
importlib.reload(mmengine.runner.checkpoint)
importlib.reload(mmengine.config.utils)
"""
        + CHECK,
        'import hybrid_mm, importlib\nimportlib.reload(hybrid_mm)\n' + CHECK,
        # as a script
        """
import hybrid_mm, runpy
assert runpy.run_module('mmengine.runner.checkpoint', run_name='x')['name'] == 'x'
"""
        + CHECK,
        # in other threads, and in another process
        """
import threading
from concurrent.futures import ThreadPoolExecutor
import hybrid_mm
ready = threading.Barrier(8)
def check(_):
    ready.wait()
    exec(CHECK, {})
with ThreadPoolExecutor(8) as pool:
    list(pool.map(check, range(8)))
""".replace('CHECK', repr(CHECK)),
        """
import multiprocessing
import hybrid_mm
process = multiprocessing.get_context('fork').Process(target=exec, args=(CHECK, {}))
process.start()
process.join()
assert process.exitcode == 0
""".replace('CHECK', repr(CHECK)),
    ],
    ids=[
        'first', 'last', 'between', 'find_spec', 'reload', 'reload ours', 'runpy', 'threads', 'fork'
    ],
)  # fmt: skip
def test_whatever_is_imported_first(mmengine, code):
    assert run(code, mmengine) == ''


def test_another_thread_is_waited_for(tmp_path, mmengine):
    """A module that another thread is importing is there already, but not what is in it."""
    for name, text in STAND_IN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        slow = 'import time\nbegun.set()\ntime.sleep(0.3)\n' if name.endswith('point.py') else ''
        (tmp_path / name).write_text(f'from builtins import begun\n{slow}{text}')
    code = """
import builtins, threading
builtins.begun = threading.Event()
thread = threading.Thread(target=__import__, args=('mmengine.runner.checkpoint',))
thread.start()
builtins.begun.wait()
import hybrid_mm
"""
    assert run(code + CHECK + 'thread.join()', tmp_path) == ''


def test_a_package_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / 'packages.zip', 'w') as archive:
        for name, text in STAND_IN.items():
            archive.writestr(name, text)
    code = 'import hybrid_mm' + CHECK + 'import mmengine\nprint(mmengine.__file__)'
    assert run(code, tmp_path / 'packages.zip').endswith('packages.zip/mmengine/__init__.py\n')


def test_workaround_that_fails_is_said_in_a_line(tmp_path, mmengine):
    code = """
import hybrid_mm
from hybrid_mm.compat import workarounds
def fail():
    raise OSError('no disk')
workarounds.b1_weights_only = fail
import mmengine.runner.checkpoint
from mmengine.config.utils import MODULE2PACKAGE
assert 'hybrid_mm' in MODULE2PACKAGE
"""
    assert run(code, mmengine) == 'hybrid_mm: b1_weights_only not applied: no disk\n'


def test_functional_optimizers_are_not_spoken_of(tmp_path):
    """A deprecation that torch 2.4 announces whatever the filters; other warnings are shown."""
    (tmp_path / 'torch/distributed/optim').mkdir(parents=True)
    (tmp_path / 'torch/__init__.py').touch()
    (tmp_path / 'torch/distributed/__init__.py').touch()
    (tmp_path / 'torch/distributed/optim/__init__.py').write_text("""
import warnings
with warnings.catch_warnings():
    warnings.simplefilter('always')
    warnings.warn('`TorchScript` support for functional optimizers is deprecated', stacklevel=2)
    warnings.warn('something else')
""")
    out = run('import hybrid_mm, torch.distributed.optim', tmp_path)
    assert 'something else' in out and 'TorchScript' not in out


def test_mmengine_has_these_modules():
    for name in after_import.WORKAROUNDS:
        if name.startswith('mmengine.'):  # not fvcore, which nobody needs
            importlib.import_module(name)
    assert importlib.import_module('mmengine.config.utils').MODULE2PACKAGE['hybrid_mm']
    loaders = importlib.import_module('mmengine.runner.checkpoint').CheckpointLoader._schemes
    # the function of `compat`, or that of `weights` once it is imported
    assert loaders['hybrid_mm://'].__name__ == 'load_from_hybrid_mm'


@pytest.mark.slow
def test_with_mmengine_itself():
    """Weights by name in a program that imports nothing else of ours."""
    code = """
import hybrid_mm
from mmengine.runner.checkpoint import CheckpointLoader
try:
    CheckpointLoader.load_checkpoint('hybrid_mm://van-b00_in1k')
except ValueError as error:
    print(error)
"""
    assert 'did you mean van-b0_in1k' in run(code)
