"""The demo from end to end, on a few pictures and for a few iterations."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from hybrid_mm.data import shapes

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools' / 'demo.py')
demo = importlib.util.module_from_spec(spec)
sys.modules['demo'] = demo
spec.loader.exec_module(demo)
CONFIGS = demo.SEGMENTER, demo.DETECTOR


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('demo')


@pytest.fixture(scope='module')
def run(folder):
    """Runs the demo on a few pictures with short schedules and promises that are kept."""
    splits = {'training': 8, 'validation': 6}
    patch = pytest.MonkeyPatch()
    patch.setattr(shapes, 'SPLITS', splits)

    configs = folder / 'configs'
    shutil.copytree(ROOT / 'configs' / '_base_', configs / '_base_')
    shutil.copytree(ROOT / 'configs' / 'demo', configs / 'demo')
    promises = {demo.SEGMENTER.name: "{'mIoU': 0.0}", demo.DETECTOR.name: "{'coco/bbox_mAP': 0.0}"}
    for path, promise in promises.items():
        with open(configs / 'demo' / path, 'a') as file:
            file.write(
                '\nmax_iters = 4\ntrain_cfg.update(max_iters=4, val_interval=4)\n'
                "default_hooks['checkpoint'].update(interval=4)\n"
                "default_hooks['logger'].update(interval=2)\n"
                f'expected = {promise}\n'
            )
    patch.setattr(demo, 'SEGMENTER', configs / 'demo' / demo.SEGMENTER.name)
    patch.setattr(demo, 'DETECTOR', configs / 'demo' / demo.DETECTOR.name)
    yield lambda *more: demo.main([str(folder / 'out'), '--data', str(folder / 'data'), *more])
    patch.undo()


def test_from_nothing_to_pictures(run, folder, capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    for figure in ('mIoU', 'box mAP'):
        assert figure in printed
    assert 'MISSED' not in printed and 'left' in printed
    out = folder / 'out'
    assert json.loads((out / 'metrics.json').read_text())['detector'].keys() >= {'coco/segm_mAP'}
    for name in ('detections', 'segmentations', 'curves'):
        picture = Image.open(out / f'{name}.png')
        assert min(picture.size) > 500 and len(picture.convert('RGB').getcolors(1 << 24)) > 50
    # the detector starts from the segmenter's backbone
    assert 'segmenter/iter_4.pth' in (out / 'detector' / 'train.log').read_text()


def test_reuse_says_so_and_missed_promise_is_status_1(run, capsys):
    with open(demo.DETECTOR, 'a') as file:
        file.write("expected = {'coco/segm_mAP': 1.0}\n")
    assert run('--reuse') == 1
    printed = capsys.readouterr().out
    assert printed.count('reusing') == 2 and 'MISSED' in printed


def test_failed_step_is_one_error_with_the_log(run, folder, capsys):
    shutil.rmtree(folder / 'out' / 'detector')
    with open(demo.DETECTOR, 'a') as file:
        file.write("model['backbone']['attention'] = 'softmax'\n")
    assert run('--reuse') == 2
    error = capsys.readouterr().err
    assert 'error: training the detector failed' in error and 'train.log' in error


def test_configs_promise_all_three_figures():
    promises = {}
    for path in CONFIGS:
        promises.update(Config.fromfile(path).expected)
    assert promises.keys() == {'mIoU', 'coco/bbox_mAP', 'coco/segm_mAP'}
    assert promises.keys() == demo.NAMES.keys()


def test_foreign_data_folder(tmp_path, capsys):
    (tmp_path / 'a.txt').write_text('')
    assert demo.main([str(tmp_path / 'out'), '--data', str(tmp_path)]) == 2
    assert 'choose another folder' in capsys.readouterr().err


def test_help_through_the_script(monkeypatch):
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    command = ['bash', str(ROOT / 'tools' / 'demo.sh'), '--help']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '--reuse' in done.stdout
