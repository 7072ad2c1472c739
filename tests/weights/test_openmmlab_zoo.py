"""Models with weights of OpenMMLab have the names and shapes of its own configs."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

import hybrid_mm.openmmlab  # noqa: F401
from hybrid_mm.weights.registry import OURS, all_weights

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {path.stem: path for path in ROOT.glob('configs/*/*.py')}
SAMPLES = {'retinanet_pvtv2-b1_fpn_1x_coco'}
NAMES = [
    pytest.param(
        name,
        marks=[pytest.mark.part_of(f'tree:{w.tree}')] + [pytest.mark.slow] * (name not in SAMPLES),
    )
    for name, w in all_weights().items()
    if name in CONFIGS and w.files and w.files[0].layout == OURS
]


def config_of(address: str, package: str) -> Path:
    """OpenMMLab's config for a file, from its metafiles."""
    folder = Path(importlib.util.find_spec(package).origin).parent / '.mim'
    file = address.rpartition('/')[2]
    for metafile in folder.glob('configs/*/metafile.y*ml'):
        lines = metafile.read_text().splitlines()
        at = next((i for i, line in enumerate(lines) if f'/{file}' in line), None)
        if at is None:
            continue
        # either is within the entry, whose first line is its name
        start = max(i for i in range(at) if '- Name:' in lines[i])
        entry = itertools.takewhile(lambda line: '- Name:' not in line, lines[start + 1 :])
        return folder / next(line.split()[1] for line in entry if 'Config:' in line)
    raise LookupError(file)


def shapes(path: Path, scope: str) -> dict[str, torch.Size]:
    """Names and shapes of the weights of the model of a config; nothing is computed."""
    cfg = Config.fromfile(path)
    linspace = torch.linspace  # drop path rates are read

    def on_cpu(*args, **kwargs):
        return linspace(*args, **{**kwargs, 'device': 'cpu'})

    with pytest.MonkeyPatch.context() as patch, torch.device('meta'):
        patch.setattr(torch, 'linspace', on_cpu)
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(ConfigDict(without_weights(cfg.model.to_dict())))
    return {name: value.shape for name, value in model.state_dict().items()}


def without_weights(node):
    """Settings without weights to load, and with batch norms that need no other process."""
    if isinstance(node, list | tuple):
        return [without_weights(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: without_weights(v) for k, v in node.items() if k not in ('init_cfg', 'pretrained')}
    return {**kept, 'type': 'BN'} if kept.get('type') == 'SyncBN' else kept


@pytest.mark.parametrize('name', NAMES)
def test_the_files_fit(name):
    file = all_weights()[name].files[0]
    package = 'mmseg' if '/mmsegmentation/' in file.urls[0] else 'mmdet'
    expected = shapes(config_of(file.urls[0], package), package)
    assert shapes(CONFIGS[name], package) == expected
