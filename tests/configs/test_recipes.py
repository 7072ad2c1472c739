"""Every value of every config is that of its ledger, ``configs/<tree>/recipe.yml``."""

import pytest
import yaml

from hybrid_mm.zoo import recipe_tables, recipes

from .loading import CONFIGS
from .recipes.compare import BUILT, built, differences
from .recipes.describe import pipeline, spelled

TREES = sorted(path.parent.name for path in CONFIGS.glob('*/metafile.yml'))
every_tree = pytest.mark.parametrize(
    'tree', [pytest.param(tree, marks=pytest.mark.part_of(f'tree:{tree}')) for tree in TREES]
)


@every_tree
def test_configs_are_as_their_ledger_says(tree):
    found = list(differences(tree))
    assert not found, '\n'.join([*found[:40], f'{len(found)} in all'])


@pytest.mark.parametrize('tree', [TREES[0], TREES[-1]])
def test_digests_tell_what_models_make_of_configs(tree):
    fields = {*['no_decay', 'lr_mult', 'drop_path', 'layer_scale', 'norm', 'head_norm', 'frozen']}
    assert all(set(values) == fields for values in built(tree).values()), BUILT


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


LEDGER = """
Sources:
  code: {Repository: https://github.com/a/b, Commit: '123'}
  paper: {Paper: https://arxiv.org/abs/1}
Recipes:
  - Name: One
    Configs: [a_*]
    Source: code a.py L1
    Official: {lr: 1e-4, drop_path: {a_1: 0.1, '*': 0.2}}
    From: {lr: paper table 1}
    Unverified: {amp: no}
  - Name: Two
    Like: One
    Configs: [b]
    Source: code b.py
    Official: {amp: float16}
    Different: {lr: {Official: 1, Ours: 2, Why: a slip}}
"""


def write(tmp_path, change=lambda data: None):
    data = yaml.safe_load(LEDGER)
    change(data)
    (tmp_path / recipes.FILE).write_text(yaml.dump(data, sort_keys=False))
    for name in ('a_1', 'a_2', 'b'):
        (tmp_path / f'{name}.py').touch()
    return recipes.read(tmp_path)


def test_ledger(tmp_path):
    ledger = write(tmp_path)
    one, two = ledger.recipes
    assert ledger.configs_of(one) == ['a_1', 'a_2']
    assert [one.of(name)['drop_path'].ours for name in ('a_1', 'a_2')] == [0.1, 0.2]
    assert one.values['lr'].source == 'paper table 1'
    assert one.values['drop_path'].source == 'code a.py L1'
    assert two.values['drop_path'].source == 'code b.py'  # which says the same
    assert two.values['amp'] == ('Official', 'float16', 'float16', 'code b.py', '')
    assert two.values['lr'] == ('Different', 2, 1, 'code b.py', 'a slip')
    assert ledger.counts() == dict(Official=6, Unverified=2, Chosen=0, Different=1)
    assert recipes.same(1e-4, '0.0001')
    assert recipes.same(False, 'no')
    assert not recipes.same(1e-4, 1.001e-4)
    assert not recipes.same('norm 1', 'norm 5')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: d['Sources']['code'].pop('Commit'), "source 'code' needs"),
        (lambda d: d['Recipes'][0].update(Official={'lr': 1}, From={'lr': 'papr'}), "'papr'"),
        (lambda d: d['Recipes'][0].pop('Source'), 'drop_path has no source'),
        (lambda d: d['Recipes'][0].update(Chosen={'lr': 1}), 'lr is Official and Chosen'),
        (lambda d: d['Recipes'][0].update(Configs=['a_1']), 'a_2 has no recipe'),
        (lambda d: d['Recipes'][0].update(Configs=['*']), 'b is in One and in Two'),
        (lambda d: d['Recipes'][0].update(Configs=['a_*', 'c']), 'no config is called c'),
        (lambda d: d['Recipes'][1].update(Like='Three'), "Like names 'Three'"),
        (lambda d: d['Recipes'][1].update(Offical={}), "'Offical'; did you mean Official?"),
        (lambda d: d['Recipes'][1].update(Different={'lr': 2}), 'Official, Ours and Why'),
        (lambda d: d['Recipes'][1].update(From={'clip': 'paper'}), 'clip, which has no value'),
    ],
)
def test_mistakes_of_a_ledger_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message.replace('?', r'\?')):
        write(tmp_path, change)
    with pytest.raises(ValueError, match='drop_path has no value for a_2'):
        write(tmp_path).recipes[0]._replace(
            values={'drop_path': recipes.Value('Chosen', {'a_1': 0.1})}
        ).of('a_2')


def test_tables(tmp_path):
    """Links lead to the lines; of a recipe like another only what differs is shown."""
    ledger = write(tmp_path)
    text = recipe_tables.section(ledger)
    one, two = text.split('### Two')
    assert '| lr | 1e-4 | [paper table 1](https://arxiv.org/abs/1) |' in one
    link = '[code a.py L1](https://github.com/a/b/blob/123/a.py#L1)'
    assert f'| drop path | 0.1 (a_1)<br>0.2 (*) | {link} |' in one
    assert '| amp | no | unverified |' in one
    assert 'As One, but for:' in two
    assert 'drop path' not in two
    assert '| lr | 2; official: 1. a slip |' in two
    text = recipe_tables.overview({'x': ledger, 'y': ledger})
    assert '| all | 12 | 4 | 0 | 2 |' in text
    assert '| x | Two | lr | 1 | 2 | a slip |' in text
