"""Every value of every config is that of its ledger, ``configs/<tree>/recipe.yml``."""

import pytest
import yaml

from .loading import CONFIGS
from .recipes.compare import built, differences
from .recipes.describe import pipeline, spelled

TREES = sorted(path.parent.name for path in CONFIGS.glob('*/metafile.yml'))
every_tree = pytest.mark.parametrize(
    'tree', [pytest.param(tree, marks=pytest.mark.part_of(f'tree:{tree}')) for tree in TREES]
)


@every_tree
def test_configs_are_as_their_ledger_says(tree):
    found = list(differences(tree))
    assert not found, '\n'.join([*found[:40], f'{len(found)} in all'])


@every_tree
def test_every_loader_reads_the_ledger(tree):
    """PyYAML without libyaml takes no ``?`` in a plain scalar of a flow sequence."""
    assert yaml.load((CONFIGS / tree / 'recipe.yml').read_text(), yaml.SafeLoader)


@pytest.mark.parametrize('tree', [TREES[0], TREES[-1]])
def test_digests_tell_what_models_make_of_configs(tree):
    fields = {*['no_decay', 'lr_mult', 'drop_path', 'layer_scale', 'norm', 'head_norm', 'frozen']}
    assert all(set(values) == fields for values in built(tree).values())


def test_spelling():
    assert spelled(dict(type='Resize', scale=(1333, 800), keep_ratio=True)) == (
        'Resize(keep_ratio=True, scale=1333 x 800)'
    )
    resize = [dict(type='Resize', scale=(1333, 480 + 32 * i)) for i in range(11)]
    crop = [dict(type='RandomCrop', crop_size=(384, 600))]
    assert pipeline([dict(type='RandomChoice', transforms=[[step] for step in resize])]) == (
        'RandomChoiceResize(scales=480..800 step 32, longest 1333)'
    )
    assert pipeline([dict(type='RandomChoice', transforms=[crop, resize[:1]])]) == (
        'RandomChoice(RandomCrop(crop_size=384 x 600) | Resize(scale=1333 x 480))'
    )
