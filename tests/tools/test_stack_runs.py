"""tools/dev/stack_runs.py: its configs, what it makes of them, and what it takes for a failure."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from mmengine.config import Config

from ..conftest import ROOT, load_tool


@pytest.fixture(scope='module')
def runs():
    return load_tool('dev/stack_runs')


def test_three_configs_of_each_head(runs, capsys):
    heads = Counter(name.partition('/')[0] for name in runs.CONFIGS)
    assert set(heads.values()) == {3} and len(heads) == 7
    assert all((ROOT / 'configs' / path).is_file() for path in runs.CONFIGS.values())
    assert len(runs.chosen(['retinanet', 'upernet/qna-tiny'])) == 4
    with pytest.raises(SystemExit):
        runs.main(['--out', 'x', '--only', 'retina'])
    assert '--only retina: names are retinanet/van-b0' in capsys.readouterr().err


def test_pictures_and_small_configs(runs, tmp_path, monkeypatch):
    runs.draw(tmp_path)
    for key in ('COCO_ROOT', 'ADE_ROOT', 'IMAGENET_ROOT'):
        monkeypatch.setenv(key, str(tmp_path / key[:-5].lower()))
    for name, last in (
        ('cascade/pelk-tiny', 'epoch_1.pth'),
        ('mask2former/semantic', 'iter_2.pth'),
    ):
        path = tmp_path / 'config.py'
        scope, checkpoint = runs.write_config(ROOT / 'configs' / runs.CONFIGS[name], path)
        cfg = Config.fromfile(path)
        assert checkpoint == last and scope == cfg.default_scope
        assert 'Pretrained' not in path.read_text()
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert '1333' not in str(pipeline) and '640' not in str(pipeline)
    assert cfg.model.backbone.arch == 'mini'
    coco = json.loads((tmp_path / 'coco/annotations/instances_val2017.json').read_text())
    assert len(coco['images']) == 2 and len(coco['annotations']) == 6


@pytest.mark.parametrize('wrong', [None, 'loss', 'figures', 'drawn', 'predictions'])
def test_what_fails(runs, tmp_path, monkeypatch, wrong):
    monkeypatch.setenv('COCO_ROOT', str(tmp_path))

    def call(tool, argv, log):
        folder = log.parent
        log = folder / log.stem / 'now/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        figures = dict(mIoU=1.0 if (wrong, tool.stem) == ('figures', 'test') else 2.0, step=1)
        loss = dict(loss=float('nan') if wrong == 'loss' else 1.0)
        log.write_text('\n'.join(map(json.dumps, (loss, figures))))
        (folder / 'shown').mkdir(exist_ok=True)
        pictures = folder / 'predictions/pictures'
        pictures.mkdir(exist_ok=True, parents=True)
        if wrong != 'drawn':
            (folder / 'shown/x.png').touch()
        for i in range(1 if wrong == 'predictions' else 2):
            (pictures / f'{i}.png').touch()
        (folder / 'predictions/predictions.json').write_text('[{}, {}]')

    monkeypatch.setattr(runs, 'call', call)
    monkeypatch.setattr(runs, 'write_config', lambda *paths: ('mmseg', 'iter_2.pth'))
    result = runs.run('upernet/qna-tiny', tmp_path / 'run')
    assert result['status'] == ('PASS' if wrong is None else 'FAIL'), result
    if wrong is None:
        assert (result['loss'], result['figures']) == (1.0, {'mIoU': 2.0})
    else:
        assert {
            'loss': 'losses [nan]',
            'figures': "finds {'mIoU': 1.0}, the validation {'mIoU': 2.0}",
            'drawn': 'draws nothing',
            'predictions': '1 pictures',
        }[wrong] in result['error']


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run(tmp_path):
    """In a process of its own, as the commands are forks of it."""
    command = [sys.executable, ROOT / 'tools/dev/stack_runs.py', '--out', tmp_path / 'x']
    command += ['--only', 'semantic-fpn/van-b0']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '\nPASS semantic-fpn/van-b0 ' in f'\n{done.stdout}'
