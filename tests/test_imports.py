"""Imports go one way (see docs/contributing.md): what each room of the package may import."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / 'hybrid_mm'

# room -> rooms that it may import, besides itself and what these may import
ROOMS = {
    'errors': (),
    'version': (),
    'lazy': (),
    'registry': (),
    'compat': (),
    'ops': ('errors', 'compat'),
    'layers': ('ops',),
    'convert': (),
    'checkpoint_files': ('lazy', 'errors', 'compat'),
    'weights': ('checkpoint_files', 'convert', 'ops'),
    'checkpoints': ('weights',),
    'backbones': ('layers', 'convert', 'registry', 'checkpoints'),
    'plugins': ('layers', 'registry', 'compat'),
    'openmmlab': ('backbones', 'plugins', 'version'),
    'data': ('errors', 'registry', 'compat'),
    'evaluation': ('data',),
    'engine': ('checkpoints', 'data'),
    'run': ('engine', 'evaluation'),
    'zoo': ('run',),
    'export': ('zoo', 'benchmarks'),
    'benchmarks': ('zoo', 'layers', 'version'),
    'analysis': ('benchmarks', 'export', 'apis'),
    'apis': ('run',),
    'testing': ('run', 'backbones'),
    'demo': ('data', 'analysis'),
    'commands': ('apis', 'demo'),
    '__main__': ('commands',),
}  # fmt: skip
# room -> third-party packages; all others may import what is installed
PACKAGES = {
    'errors': set(),
    'lazy': set(),
    'ops': {'torch', 'numpy', 'triton'},
    'layers': {'torch', 'numpy', 'torchvision'},  # torchvision: its deformable convolution
    'convert': {'torch', 'numpy'},
    'checkpoint_files': {'torch', 'numpy', 'mmengine', 'safetensors'},
    'weights': {'torch', 'mmengine', 'yaml'},
    'checkpoints': {'torch', 'mmengine'},
    'backbones': {'torch', 'numpy', 'mmengine', 'typing_extensions'},
    # mmcv: its norms and its context and non-local blocks; ResNets with plugins are built by it
    'plugins': {'torch', 'mmengine', 'mmcv'},
    'testing': {'torch', 'numpy', 'mmengine'},  # no pytest: it is called from plain scripts as well
}  # fmt: skip
# the only file with imports of ours inside of a function: `main` reads the arguments before it
# imports what does the work, as do the files in tools/ (tests/tools/test_help.py)
INSIDE = {'__main__.py': 'main'}
# rooms in which a name of a file stands for one thing: not `commands`, whose files are called after
# the tools; files of algorithms, below a folder of
# `ops`, are called after the algorithm
UNIQUE = ('ops', 'layers', 'backbones', 'engine', 'run', 'analysis')


def imported(node):
    """Modules that a node of a file imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, 'relative import'
        if node.module == 'hybrid_mm':
            return [f'hybrid_mm.{alias.name}' for alias in node.names]
        return [node.module]
    return []


def files(room):
    found = [ROOT / f'{room}.py'] if (ROOT / f'{room}.py').is_file() else []
    return found or sorted((ROOT / room).rglob('*.py'))


def allowed(room):
    """Rooms that a room may import."""
    return {room}.union(*(allowed(other) for other in ROOMS[room]))


def test_every_room_is_listed():
    found = {p.stem for p in ROOT.glob('*.py')} | {
        p.parent.name for p in ROOT.glob('*/__init__.py')
    }
    assert found - {'__init__', '.mim'} == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_imports_go_one_way(room):
    assert files(room)
    for path in files(room):
        place = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported(node):
                first, *rest = name.split('.')
                if first == 'hybrid_mm':
                    assert rest[0] in allowed(room), f'{place} imports {name}'
                elif room in PACKAGES and first not in sys.stdlib_module_names:
                    assert first in PACKAGES[room], f'{place} imports {name}'
                assert first not in ('tools', 'tests'), f'{place} imports {name}'


def test_imports_of_ours_are_at_the_top_of_files():
    """One within a function hides a circle, or a room that it may not use."""
    inside = {}
    for path in ROOT.rglob('*.py'):
        if '.mim' in path.parts:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for node in ast.walk(function):
                    if any(name.startswith('hybrid_mm') for name in imported(node)):
                        inside[str(path.relative_to(ROOT))] = getattr(function, 'name', '')
    assert inside == INSIDE


def test_one_name_one_file():
    found = defaultdict(list)
    for room in UNIQUE:
        for path in files(room):
            place = path.relative_to(ROOT)
            algorithm = place.parts[0] == 'ops' and len(place.parts) > 2
            if path.stem != '__init__' and not algorithm:
                found[path.stem].append(str(place))
            elif path.stem == '__init__' and len(place.parts) == 3:
                found[place.parts[1]].append(str(place))
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert not twice


def test_backbones_need_neither_mmcv_nor_the_task_libraries():
    """A fresh interpreter in which they cannot be imported builds and runs a backbone."""
    code = """
import sys
for name in ('mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
    sys.modules[name] = None
import torch
from hybrid_mm.backbones import VAN
print(len(VAN('b0').eval()(torch.rand(1, 3, 32, 32))))
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == '4', result.stderr


def test_layers_need_torch_only():
    code = 'import sys; sys.modules["mmengine"] = None; import hybrid_mm.layers; print("ok")'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == 'ok', result.stderr
