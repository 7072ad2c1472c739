"""tools/study.py, as users run it: a tiny study of drawn shapes, stopped and resumed; tables."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import load_tool

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """
_base_ = '{root}/configs/study/recipes/{task}.py'
train_cfg = dict(max_iters=4, val_interval=2)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.fixture
def study(tmp_path):
    """A study of two systems with a short recipe."""
    folder = tmp_path / 'study'
    (folder / 'members').mkdir(parents=True)
    (folder / 'recipes').mkdir()
    for name in ('van', 'lska'):
        shutil.copy(ROOT / f'configs/study/members/{name}.py', folder / 'members')
    for task in ('segmentation', 'detection'):
        text = RECIPE.format(root=ROOT, task=task)
        (folder / f'recipes/{task}.py').write_text(text)
    return folder


def test_mistakes_are_one_line(study, tmp_path, capsys, monkeypatch):
    main = load_tool('study').main
    here = ['--study', str(study), '--work-dir', str(tmp_path / 'work'), '--task', 'segmentation']
    monkeypatch.setenv('CAMVID_ROOT', str(tmp_path / 'nowhere'))
    assert main(['run', *here]) == 2
    assert 'set CAMVID_ROOT' in capsys.readouterr().err
    assert main(['run', *here, '--only', 'vam']) == 2
    assert 'did you mean van' in capsys.readouterr().err
    assert main(['train', 'vam', *here]) == 2
    assert 'no system' in capsys.readouterr().err
    assert main(['run', '--study', str(tmp_path)]) == 2
    assert 'members/' in capsys.readouterr().err


@pytest.mark.slow
def test_run_stopped_resumed_and_tabulated(study, tmp_path):
    here = ['--study', str(study), '--task', 'detection', '--work-dir', str(tmp_path / 'work')]
    arguments = ['run', *here, '--jobs', '1']
    command = [sys.executable, str(ROOT / 'tools/study.py'), *arguments]
    first = subprocess.Popen(command, cwd=ROOT)
    work = tmp_path / 'work/detection'
    end = time.monotonic() + 300
    while not list(work.glob('*/iter_2.pth')):
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    results = study / 'results.json'
    assert not results.exists()
    (folder,) = work.iterdir()

    assert subprocess.run(command, cwd=ROOT).returncode == 0
    rows = json.loads(results.read_text())['records']
    assert [(r['system'], [x for x, _ in r['curve']]) for r in rows] == [
        ('lska', [2, 4]),
        ('van', [2, 4]),
    ]
    assert 'iteration 2' in (folder / 'log.txt').read_text()
    assert all(r['step_bytes'] > 1e8 and r['seconds'] > 0 for r in rows)
    assert not list(work.glob('*/*.pth'))

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert '2 of 2 trainings have results' in done.stdout
    page = tmp_path / 'page.md'
    assert load_tool('study').main(['table', *here, '--page', str(page)]) == 0
    assert f'| van |  | {rows[1]["last"]:.1f} |' in page.read_text()
