"""tools/gpu_check.py, dry."""

import json
import os
import subprocess
import sys

import pytest

from ..conftest import ROOT, load_tool

DRY = ('gpu_check', '--dry', '--workers', '1')


def results(folder) -> dict:
    found = json.loads((folder / 'gpu_check.json').read_text())
    assert not found['running']
    assert not found['open']
    return {result['name']: result for result in found['results']}


@pytest.mark.slow  # every check there is, in the interpreter
def test_some_of_everything(tool, tmp_path, capsys):
    only = (
        'operators/grid_convolution: 7 x 7 (HorNet)/',
        'layers/windows of 7 (Swin)/float16',
        'networks/LeViT',
        'training/Semantic FPN, VAN-LSKA',
        'timings/mixed_shift',
    )
    assert load_tool('gpu_check').main([*DRY[1:], '--out', str(tmp_path), '--only', *only]) == 0
    printed = capsys.readouterr().out
    found = results(tmp_path)
    assert {result['status'] for result in found.values()} == {'PASS', 'SKIP'}
    for name in only:
        (first, *_) = (result for result in found.values() if name in result['name'])
        assert first['status'] == 'PASS', first
        assert f'PASS  {first["name"]} | {first["text"]}' in printed
    compiled = found['operators/grid_convolution: 7 x 7 (HorNet)/auto/float16/compiled']
    assert compiled['status'] == 'PASS'
    (timing,) = (result for result in found.values() if 'timings' in result['name'])
    candidates = [row['candidate'] for row in timing['figures']['rows']]
    assert (candidates[0], candidates[-1]) == ('ours', 'plain')
    text = (tmp_path / 'gpu_check.md').read_text()
    assert '## timings' in text
    assert 'torch ' in text


@pytest.mark.slow  # each starts a process and computes several networks
@pytest.mark.parametrize(
    ('missing', 'only', 'text'),
    [
        ('mmengine mmcv mmdet mmseg rich', 'networks', 'ImportError: mmengine is blocked'),
        ('mmcv mmdet mmseg', 'training/Semantic FPN', 'a plain head'),
    ],
)
def test_where_packages_are_missing(tmp_path, missing, only, text):
    """From a plain checkout: operators and layers need neither; training goes on without heads."""
    for name in missing.split():
        (tmp_path / f'{name}.py').write_text(f"raise ImportError('{name} is blocked')\n")
    arguments = [*DRY[1:], '--out', tmp_path / 'out', '--only', only, 'layers/stem (SASA)/float16']
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/gpu_check.py', *map(str, arguments)],
        env=os.environ | dict(PYTHONPATH=str(tmp_path), OMP_NUM_THREADS='1'),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path / 'out')
    assert found['layers/stem (SASA)/float16']['status'] == 'PASS'
    assert any(text in result['text'] for name, result in found.items() if only in name)


def test_list_and_mistakes(tool, fails, capsys, tmp_path):
    assert load_tool('gpu_check').main(['--list', '--only', 'networks/NAT']) == 0
    names = capsys.readouterr().out.split('\n')
    assert 'networks/NAT/CUDA graph' in names
    assert 'no task contains that' in fails('gpu_check', '--only', 'nonsense')
    assert 'torch sees no GPU here; --dry' in fails('gpu_check', '--out', tmp_path)
