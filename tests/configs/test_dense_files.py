"""Published detectors and segmenters fit the models of our configs: all names and shapes.

``data/dense/<tree>.txt`` has the names and shapes of the authors' files. They were written by the
authors' code: by detectron2 from its configs and those of ViTDet, MViTv2 and Mask2Former, else by
the authors' networks, built as their configs for MMDetection 2 or MMSegmentation 0 say, beside the
necks and heads of these configs.
"""

import functools
import itertools
import re

import pytest
import torch

from hybrid_mm.convert import SOURCES, convert, detect, differences
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.weights.registry import OURS, all_weights

from .conftest import CONFIG_FILES, CONFIGS, full

FOLDER = CONFIGS.parent / 'tests/configs/data/dense'
PATHS = {path.stem: path for path in CONFIG_FILES}
# layouts whose files are tested elsewhere
ELSEWHERE = {OURS: 'test_openmmlab_zoo.py', 'gcnet-mmdet1': 'test_gcnet.py'}
# files of which nothing but the name is known; a person has to fetch them
NOT_SEEN = {'attention_modules'}


def expand(pattern):
    """``a.{0-2,5}.{weight,bias}`` in full."""
    options = []
    for i, part in enumerate(re.split(r'\{([^}]*)\}', pattern)):
        found = [part] if i % 2 == 0 else []
        for item in part.split(',') if i % 2 else []:
            if match := re.fullmatch(r'(\d+)-(\d+)', item):
                found += map(str, range(int(match[1]), int(match[2]) + 1))
            else:
                found.append(item)
        options.append(found)
    return map(''.join, itertools.product(*options))


@functools.cache
def sections(tree):
    """A file: parts of networks by config and layout, and the lines of each part."""
    head, *rest = (FOLDER / f'{tree}.txt').read_text().split('\n[')
    files = {}
    for line in head.split('\n'):
        if line:
            names, _, parts = line.partition(': ')
            files[tuple(names.split())] = parts.split()
    return files, dict(text.rstrip('\n').split(']\n') for text in rest)


def state_dict(tree, name, layout):
    """A file without values."""
    files, parts = sections(tree)
    state = {}
    for part in files[name, layout]:
        for line in parts[part].split('\n'):
            pattern, _, shape = line.partition(' ')
            shape = [int(side) for side in shape.split('x')] if shape != '-' else []
            for key in expand(f'{part.partition(".")[0]}.{pattern}'):
                state[key] = torch.empty(shape, device='meta')
    return state


FILES = [(p.stem, *key) for p in sorted(FOLDER.glob('*.txt')) for key in sections(p.stem)[0]]


def samples():
    """One of each kind, small ones: of every tree, layout and sort of heads."""
    kinds = {}
    for tree, name, layout in FILES:
        heads = re.match(r'(cascade|mask|mask2former|retinanet|fcos|htc)?', name)[1] or 'segmenter'
        key = tree, layout, heads
        size = sum(len(sections(tree)[1][part]) for part in sections(tree)[0][name, layout])
        kinds[key] = min(kinds.get(key, (size, name)), (size, name))
    return {(tree, name, layout) for (tree, layout, _), (_, name) in kinds.items()}


SAMPLES = samples()


@pytest.mark.parametrize(
    ('tree', 'name', 'layout'),
    [
        pytest.param(
            *file,
            marks=[pytest.mark.part_of(f'tree:{file[0]}')]
            + [pytest.mark.slow] * (file not in SAMPLES),
            id='-'.join(file[1:]),
        )
        for file in FILES
    ],
)
def test_the_files_fit(tree, name, layout):
    state = state_dict(tree, name, layout)
    # ADE20K's panoptic segmenter has the names of a semantic one, MMDetection's Swin those of ours
    assert detect(state) == layout.removesuffix('-ade20k-panoptic').removesuffix('-mmdetection')
    model = full(PATHS[name])
    weights, _ = fitted_weights(model, convert(state, layout))
    assert not differences(model.state_dict(), weights)


def test_all_files_of_the_registry_are_here():
    """Those that fit nothing would be downloaded for nothing."""
    stored = {(name, layout) for _, name, layout in FILES}
    missing = {
        (name, file.layout)
        for name, weights in all_weights().items()
        if name in PATHS and weights.tree not in NOT_SEEN
        for file in weights.files
        # not the weights of a classifier that a config trains
        if '_coco' in name or '_ade20k' in name or '_cityscapes' in name
        if file.layout not in ELSEWHERE
        if (name, file.layout.removesuffix('-semantic')) not in stored
    }
    assert missing == set()
    assert {layout for _, layout in stored} <= SOURCES.keys()
