"""Images are normalised and tested as those of the weights, see preprocessing.yml."""

import functools
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from hybrid_mm.weights.registry import FOLDER

from .conftest import CONFIG_FILES
from .loading import look_at

NORMALISATIONS = {
    'ImageNet': ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    'half': ([127.5] * 3, [127.5] * 3),
}
FILES = [path for path in CONFIG_FILES if path.parent.name not in ('demo', 'camvid')]
TREES = sorted({path.parent.name for path in FILES})
every_tree = pytest.mark.parametrize(
    'tree', [pytest.param(tree, marks=pytest.mark.part_of(f'tree:{tree}')) for tree in TREES]
)


@functools.cache
def table() -> list[dict]:
    return yaml.safe_load((FOLDER / 'preprocessing.yml').read_text())


def entry_of(weights: str) -> dict:
    fitting = (e for e in table() if any(fnmatchcase(weights, p) for p in e['Weights']))
    return next(fitting, {})


def written_by(path: Path) -> str:
    """Weights that an ImageNet config trains: van-b0_in1k for van-b0_8xb128_in1k."""
    return re.sub(r'_\d+xb\d+(-\d+[ek])?', '', path.stem)


def read_by(cfg) -> str | None:
    """Weights that a detector or segmenter starts from."""
    init = cfg.model.backbone.get('init_cfg') or {}
    inits = init if isinstance(init, list) else [init]
    names = [i['checkpoint'].rpartition('/')[2] for i in inits if i.get('checkpoint')]
    return names[0].removesuffix('.pth') if names else None


def normalisation(cfg) -> tuple[list[float], list[float]]:
    settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    return list(settings.mean), list(settings.std)


@functools.cache
def trained() -> dict[str, Path]:
    """ImageNet configs by the weights that they train."""
    return {written_by(path): path for path in FILES if '_in1k' in path.stem}


def expected(weights: str, dense: bool) -> tuple[list[float], list[float]]:
    entry = entry_of(weights)
    if entry:
        value = entry['Normalisation']
        value = entry.get('Dense', value) if dense else value
        return NORMALISATIONS[value] if isinstance(value, str) else tuple(value)
    assert weights in trained(), f'{weights} is neither in preprocessing.yml nor trained here'
    return normalisation(look_at(trained()[weights]))


@every_tree
def test_images_are_normalised_as_those_of_the_weights(tree):
    wrong = []
    for path in (p for p in FILES if p.parent.name == tree):
        cfg = look_at(path)
        dense = cfg.default_scope != 'mmpretrain'
        weights = read_by(cfg) if dense else written_by(path) if '_in1k' in path.stem else None
        if weights and normalisation(cfg) != expected(weights, dense):
            wrong.append(f'{path.stem} ({weights}): {normalisation(cfg)}')
    assert not wrong, '\n'.join(wrong)


def resolution(cfg) -> tuple[float | str, int, str]:
    """Short edge (or 'stretched'), crop and interpolation of the test."""
    steps = {s.type: s for s in cfg.test_dataloader.dataset.pipeline}
    if 'ResizeEdge' not in steps:
        resize = steps['Resize']
        side = resize.scale[0] if isinstance(resize.scale, (tuple, list)) else resize.scale
        return 'stretched', side, resize.get('interpolation', 'bilinear')
    resize = steps['ResizeEdge']
    return resize.scale, steps['CenterCrop'].crop_size, resize.get('interpolation', 'bilinear')


@every_tree
def test_classifiers_are_tested_at_the_resolution_of_their_weights(tree):
    wrong = []
    for path in (p for p in FILES if p.parent.name == tree and '_in1k' in p.stem):
        entry = entry_of(written_by(path))
        if 'Crop' not in entry:
            continue
        edge, crop, interpolation = resolution(look_at(path))
        share = entry['Percentage']
        # both ways to round the edge are in use
        fits = edge == share if 'stretched' in (edge, share) else abs(edge - crop / share) < 1
        if not (fits and crop == entry['Crop'] and interpolation == entry['Interpolation']):
            wrong.append(f'{path.stem}: {edge}, {crop}, {interpolation}; published: {entry}')
    assert not wrong, '\n'.join(wrong)


def test_entries_have_sources_and_are_in_use():
    keys = {'Weights', 'Normalisation', 'Dense', 'Crop', 'Percentage', 'Interpolation', 'Source'}
    used = {weights for path in FILES for weights in (written_by(path), read_by(look_at(path)))}
    for entry in table():
        assert set(entry) <= keys, entry
        assert entry['Source'], entry
        assert any(entry_of(weights or '') is entry for weights in used), entry
