"""Comparison of variants of a network: figures, and the tool."""

import json
import runpy

import pytest
from torch import nn

from hybrid_mm.analysis import variants
from hybrid_mm.analysis.complexity import complexity

GC = """[dict(cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 4), position='after_conv3')]"""


@pytest.fixture
def folder(tmp_path):
    text = "backbone = dict(type='hybrid_mm.PluginResNet', depth=50, base_channels=8, {})\n"
    (tmp_path / 'gc.py').write_text(text.format(f'plugins={GC}'))
    (tmp_path / 'resnet50.py').write_text(
        text.format("init_cfg=dict(type='Pretrained', checkpoint='x')")
    )
    (tmp_path / 'wide.py').write_text(text.replace('8', '16').format(''))
    return tmp_path


def test_figures(folder):
    paths = variants.find(folder)
    assert list(paths) == ['resnet50', 'gc', 'wide']
    found = variants.compare(paths, (64, 64), rounds=2)
    for variant in found:
        model = variants.build(paths[variant.name])
        assert (variant.params, variant.macs) == complexity(model, (64, 64))
        norms = [m for m in model.train().modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(norm.training for norm in norms)
        assert 0 < variant.inference_ms < variant.training_ms
    assert found[0].inference_ratio == found[0].training_ratio == 1
    assert found[2].params > found[1].params > found[0].params
    with pytest.raises(ValueError, match='at least 2 images and 1 round needed, got 1 and 5'):
        variants.compare(paths, (64, 64), batch=1)


def test_tool(folder, capsys, pytestconfig):
    main = runpy.run_path(str(pytestconfig.rootpath / 'tools/analysis/compare_members.py'))['main']
    out, plot = folder / 'new/figures.json', folder / 'new/plot.png'
    options = ['--folder', str(folder), '--shape', '64', '64', '--rounds', '1']
    assert main(['gc', *options, '--json', str(out), '--out', str(plot)]) == 0
    text = capsys.readouterr().out
    assert 'resnet50' in text
    assert 'wide' not in text
    figures = json.loads(out.read_text())
    assert [m['name'] for m in figures['members']] == ['resnet50', 'gc']
    assert f'{figures["members"][1]["params"]:,}' in text
    assert plot.stat().st_size > 1000
    assert main(['wid', *options]) == 2
    assert "no variant 'wid' in" in (error := capsys.readouterr().err)
    assert 'did you mean wide?' in error
    assert main(['--folder', str(folder / 'new')]) == 2
    assert 'has no variants' in capsys.readouterr().err


def test_variants_of_the_attention_study(pytestconfig):
    paths = variants.find(pytestconfig.rootpath / 'configs/attention_modules/members')
    assert next(iter(paths)) == 'resnet50'
    assert len(paths) >= 17
