"""tools/dev/onnx_pairs.py: configs of all rows, and the table, with tools that do not run."""

import json

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..conftest import load_tool


@pytest.fixture
def pairs():
    return load_tool('dev/onnx_pairs')


def test_every_row_is_a_model(pairs, tmp_path):
    """Small, with the classes of its data, and what is trained on is what is tested on."""
    (tmp_path / 'objects').mkdir()  # of the classifier, cut out before
    args = pairs.parse_args(['--out', str(tmp_path), '--images', '7', '--iterations', '9'])
    for row in pairs.ROWS:
        path = tmp_path / row.base / 'config.py'
        pairs.write_config(row, path, args)
        cfg = Config.fromfile(path)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        assert sum(p.numel() for p in model.parameters()) < 4e6, row.name
        train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
        if row.task != 'classification':
            assert train.indices == 7 and 'val' in str(train.data_prefix)
            assert test.data_prefix == train.data_prefix
        if row.name == 'Faster R-CNN':
            assert not model.with_mask and cfg.test_evaluator.metric == 'bbox'
    assert {row.task for row in pairs.ROWS} == set(pairs.POINTS)


@pytest.mark.parametrize(('second', 'status'), [(0.2502, 0), (0.2489, 1)])
def test_the_table(pairs, tmp_path, monkeypatch, capsys, second, status):
    """Points, not fractions; a tenth of a point is allowed; a row that fails is named."""

    def command(tool, folder, *arguments):
        texts = [str(argument) for argument in arguments]
        if 'htc' in str(folder):
            raise RuntimeError('train failed: no memory')
        if tool == 'test':
            value = second if texts[0].endswith('.onnx') else 0.25
            out = texts[texts.index('--out') + 1]
            (tmp_path / 'x').mkdir(exist_ok=True)
            with open(out, 'w') as file:
                json.dump({'coco/bbox_mAP': value}, file)

    monkeypatch.setattr(pairs, 'command', command)
    monkeypatch.setattr(pairs, 'MODULES', ())
    monkeypatch.setattr(pairs, 'write_config', lambda row, path, args: path.parent.mkdir())
    run = ['--out', str(tmp_path), '--coco', str(tmp_path), '--only', 'fcos']
    assert pairs.main(run) == status
    line = f'| FCOS | coco | coco/bbox_mAP | 25.00 | {100 * second:.2f} |'
    assert line in (tmp_path / 'pairs.md').read_text() and line in capsys.readouterr().out
    assert pairs.main([*run[:-1], 'htc']) == 1
    assert '| HTC | coco | train failed: no memory |' in capsys.readouterr().out
