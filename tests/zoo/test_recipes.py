"""Ledgers of recipes: values, sources, mistakes, and their tables."""

import pytest
import yaml

from hybrid_mm.zoo import recipe_tables, recipes
from hybrid_mm.zoo.yaml_files import read_yaml

LEDGER = """
Sources:
  code: {Repository: https://github.com/a/b, Commit: '123'}
  paper: {Paper: https://arxiv.org/abs/1}
Recipes:
  - Name: One
    Configs: [a_*]
    Source: code a.py L1
    Official: {lr: 1e-4, drop_path: {a_1: 0.1, '*': 0.2}, clip: norm 1}
    From: {lr: paper table 1}
    Unverified: {amp: no}
    Chosen: {ema: no}
  - Name: Two
    Like: One
    Configs: [b]
    Source: code b.py
    Official: {amp: float16}
    From: {clip: paper table 2, amp: 'code configs/b_?.py, its base'}
    Different: {lr: {Official: 1, Ours: 2, Why: a slip}}
"""
AMP = 'code configs/b_?.py, its base'


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
    assert two.values['clip'].source == 'paper table 2'
    assert two.values['amp'] == ('Official', 'float16', 'float16', AMP, '')
    assert two.values['lr'] == ('Different', 2, 1, 'code b.py', 'a slip')
    assert ledger.counts() == dict(Official=9, Unverified=2, Chosen=3, Different=1)
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
        (lambda d: d['Recipes'][1].update(From={'flip': 'paper'}), 'flip, which has no value'),
        (lambda d: d['Recipes'][0].update(Configs='a_*'), 'One: Configs must be a list of names'),
        (lambda d: d['Recipes'][0].update(Official=['lr']), 'One: Official must be a mapping'),
        (lambda d: d['Recipes'][1].pop('Name'), 'recipe 2 must be a mapping with a Name'),
        (lambda d: d['Sources'].update(code='a/b'), 'Sources must be a mapping'),
        (lambda d: d.clear(), 'Recipes must be a list'),
        (lambda d: d.update(Recipe=[]), "unknown key 'Recipe'; did you mean Recipes?"),
    ],
)
def test_mistakes_of_a_ledger_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message.replace('?', r'\?')):
        write(tmp_path, change)
    with pytest.raises(ValueError, match='drop_path has no value for a_2'):
        write(tmp_path).recipes[0]._replace(
            values={'drop_path': recipes.Value('Chosen', {'a_1': 0.1})}
        ).of('a_2')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (LEDGER.replace('lr: 1e-4,', 'lr: 1e-4, lr: 2e-4,'), "key 'lr' is there twice"),
        (LEDGER + '    Official: {clip: no}\n', r"key 'Official' is there twice.*line 20"),
        (LEDGER + '\tOfficial: {}\n', 'not valid YAML'),
        ('', 'Recipes must be a list'),
    ],
)
def test_texts_that_are_no_ledgers(tmp_path, text, message):
    (tmp_path / recipes.FILE).write_text(text)
    with pytest.raises(ValueError, match=f'/{recipes.FILE}: .*{message}'):
        recipes.read(tmp_path)


def test_mappings_that_are_merged_may_be_overridden(tmp_path):
    file = tmp_path / 'file.yml'
    file.write_text('a: &a {one: 1, two: 2}\nb: &b {<<: *a, one: 3}\nc: {<<: *b, two: 4}\n')
    assert read_yaml(file)['c'] == {'one': 3, 'two': 4}


def test_tables(tmp_path):
    """Links lead to the lines; of a recipe like another only what differs is shown."""
    ledger = write(tmp_path)
    text = recipe_tables.section(ledger)
    one, two = text.split('## Two')
    assert '| lr | 1e-4 | 1 |' in one
    assert '\n1. [paper table 1](https://arxiv.org/abs/1)\n' in one
    assert '| drop path | 0.1 (a_1)<br>0.2 (*) | 2 |' in one
    assert '\n2. [code a.py L1](https://github.com/a/b/blob/123/a.py#L1)\n' in one
    assert '| amp | no | unverified |' in one
    assert '| ema | no | chosen |' in one
    assert 'As One, except for:' in two
    assert 'drop path' not in two
    assert '| amp | float16 | 2 |' in two
    assert f'\n2. [{AMP}](https://github.com/a/b/tree/123/configs/)\n' in two
    assert '| lr | 2; official: 1. a slip | 1 |' in two
    text = recipe_tables.overview({'x': ledger, 'y': ledger})
    assert '| all | 18 | 4 | 6 | 2 |' in text
    assert '| x | Two | lr | 1 | 2 | a slip |' in text


SUMMARY = """
Sources: {paper: {Paper: https://arxiv.org/abs/1}}
Recipes:
  - Name: One
    Configs: [x-*]
    Source: paper
    Official:
      optimizer: AdamW
      lr: 1e-4
      lr_mult: backbone 0.7^(0..13); heads 1
      drop_path: {x-a*: 0.1, '*': 0.2}
      layer_scale: none
      length: {'*_1x': 12 epochs, '*': 36 epochs}
      train: &train >-
        RandomFlip(prob=0.5); RandomChoice(RandomChoiceResize(keep_ratio=True, scales=480..800
        step 32, longest 1333) | RandomCrop(crop_size=384 x 600, crop_type=absolute_range)); Pad()
    Unverified: {weight_decay: 0.05, batch: 16}
  - &two
    Name: Two
    Configs: [y]
    Source: paper
    Official:
      optimizer: SGD
      lr: 0.1
      lr_mult: backbone 1; heads 1
      weight_decay: 0
      drop_path: 0
      layer_scale: none
      batch: 16
      length: 1 epochs
      train: >-
        RandomResizedCrop(interpolation=bicubic, scale=224); RandAugment(magnitude_level=9);
        RandomResize(keep_ratio=True, ratio_range=[0.5, 2], scale=2048 x 512); New(a=1);
        RandomChoiceResize(scales=[1333 x 640, 1333 x 800])
      mixing: Mixup(alpha=0.8); CutMix(alpha=1)
  - {<<: *two, Name: Same, Configs: [z]}
"""


def test_summary(tmp_path):
    (tmp_path / recipes.FILE).write_text(SUMMARY)
    for name in ('x-a_1x', 'x-a_3x', 'x-b_1x', 'x-b_3x', 'y', 'z'):
        (tmp_path / f'{name}.py').touch()
    ledger = recipes.read(tmp_path)
    text = recipe_tables.summary(ledger, ledger.recipes, lambda name: name.split('_')[0])
    assert text.splitlines()[2:] == [
        r'| One | AdamW | 1e-4, layers x0.7 | 0.05 \* | 0.1 (a); 0.2 (b) | none | 16 \* '
        '| 12 epochs (1x); 36 epochs (others) '
        '| flip, (short side 480 to 800) or (crop 384 x 600) |',
        '| Two; Same | SGD | 0.1 | 0 | 0 | none | 16 | 1 epochs '
        '| random resized crop 224, RandAugment 9, 0.5 to 2 x (2048 x 512), New, '
        '1333 x 640 or 1333 x 800, Mixup 0.8, CutMix 1 |',
        '',
        r'\* not stated by the authors: borrowed from a related recipe, or our choice.',
    ]
    text = recipe_tables.summary(ledger, ledger.recipes[1:], str)
    assert text.count('\n') == 3  # no asterisk, nothing said of it
