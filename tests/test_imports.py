"""Imports go one way (see docs/contributing.md): what each part of the package may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / 'hybrid_mm'

# part -> third-party packages and own parts that it may import
ALLOWED = {
    # torchvision: its deformable convolution
    'layers': {'torch', 'torchvision', 'numpy', 'hybrid_mm.layers'},
    'convert': {'torch', 'numpy', 'hybrid_mm.convert'},
    'backbones': {'torch', 'numpy', 'mmengine', 'hybrid_mm.layers', 'hybrid_mm.convert',
                  'hybrid_mm.registry', 'hybrid_mm.backbones'},
    # mmcv: its norms and its context and non-local blocks; ResNets with plugins are built by it
    'plugins': {'torch', 'mmengine', 'mmcv', 'hybrid_mm.layers', 'hybrid_mm.registry',
                'hybrid_mm.compat', 'hybrid_mm.plugins'},
}  # fmt: skip
FORBIDDEN = {
    part: {'hybrid_mm.backbones', 'hybrid_mm.plugins', 'hybrid_mm.apis', 'tools'}
    for part in ('engine', 'data', 'evaluation', 'analysis')
}
# users' entry to the engine: networks come by registry name
FORBIDDEN['apis'] = {'hybrid_mm.backbones', 'hybrid_mm.plugins', 'hybrid_mm.analysis', 'tools'}


def imported(path):
    """Modules that a file imports, at most two levels deep for our own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names = [node.module]
            if node.module == 'hybrid_mm':
                names = [f'hybrid_mm.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split('.')
            yield '.'.join(parts[:2]) if parts[0] == 'hybrid_mm' else parts[0]


def files(part):
    found = sorted((ROOT / part).rglob('*.py'))
    assert found
    return found


@pytest.mark.parametrize('part', ALLOWED)
def test_allowed(part):
    for path in files(part):
        strange = set(imported(path)) - ALLOWED[part] - sys.stdlib_module_names
        assert not strange, f'{path.relative_to(ROOT)} imports {sorted(strange)}'


@pytest.mark.parametrize('part', FORBIDDEN)
def test_forbidden(part):
    for path in files(part):
        assert not set(imported(path)) & FORBIDDEN[part], path.relative_to(ROOT)


def test_nothing_imports_tools():
    for path in ROOT.rglob('*.py'):
        if '.mim' not in path.parts:
            assert 'tools' not in set(imported(path)), path.relative_to(ROOT)


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
