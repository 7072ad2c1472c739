"""What all layouts share: wrappers of files, comparison with a model, renaming."""

import pytest
import torch

from hybrid_mm.backbones import NAT
from hybrid_mm.convert import convert, detect, differences, unwrap
from hybrid_mm.convert.core import (
    SOURCES,
    WRAPPERS,
    Source,
    count_from_zero,
    place_reductions,
    register,
    rename,
)

STATE = {'a.weight': torch.rand(2, 8), 'a.num_batches_tracked': torch.tensor(3)}


def test_differences():
    assert differences(STATE, dict(STATE)) == []
    # files of old torch versions have no counters
    assert differences(STATE, {'a.weight': STATE['a.weight']}) == []
    assert differences({'a.weight': STATE['a.weight']}, STATE) == [
        '1 unexpected: a.num_batches_tracked'
    ]
    turned = {**STATE, 'a.weight': torch.rand(8, 2)}
    assert differences(STATE, turned) == [
        '1 of another shape: a.weight (file (8, 2), model (2, 8))'
    ]
    flat = {**STATE, 'a.weight': torch.rand(16)}
    assert differences(STATE, flat) == ['1 of another shape: a.weight (file (16,), model (2, 8))']
    assert differences(STATE, {**STATE, 'a.num_batches_tracked': torch.ones(1)}) == [
        '1 of another shape: a.num_batches_tracked (file (1,), model ())'
    ]
    many = {f'b{i}.weight': torch.ones(1) for i in range(4)}
    assert differences(STATE | many, STATE) == ['4 missing: b0.weight, b1.weight, b2.weight, ...']
    both = differences({'x': torch.ones(1)}, {'y': torch.ones(1)})
    assert both == ['1 missing: x', '1 unexpected: y']


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_wrappers(wrapper):
    inner = {'module.a': torch.ones(1), 'module.b': torch.ones(2)}
    for saved in (inner, {wrapper: inner, 'epoch': 3, 'optimizer': {'lr': 0.1}}):
        found = unwrap(saved)
        assert found == {'a': inner['module.a'], 'b': inner['module.b']}
    counted = {**inner, 'steps': torch.tensor(3)}  # the average of an EMAHook
    assert unwrap({wrapper: counted}).keys() == {'a', 'b'}
    assert unwrap({wrapper: {'a': inner['module.a'], 'steps': torch.tensor(3)}}).keys() > {'a'}
    # a part of a network may be called so
    mixed = {'module.a': torch.ones(1), 'head.b': torch.ones(2)}
    assert unwrap({wrapper: mixed}) == mixed
    assert unwrap({wrapper: {'a': torch.ones(1), 'step': 7}}).keys() == {'a'}
    with pytest.raises(ValueError, match='no weights found'):
        unwrap({wrapper: {'step': 7}})


def test_weights_come_before_their_average():
    assert unwrap({'state_dict_ema': {'a': torch.zeros(1)}, 'state_dict': STATE}) == STATE


def test_two_keys_of_one_name():
    state = {'a.weight': torch.ones(1), 'b.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r"x: two keys become 'c\.weight', the second is 'b\.wei"):
        rename(state, [(r'[ab]\.(\w+)', r'c.\1')], 'x')
    # the first rule that matches the whole key counts
    found = rename(
        state, [(r'a\.weigh', 'no'), (r'a\.(\w+)', r'first.\1'), (r'\w\.(\w+)', r'\1')], 'x'
    )
    assert found == {'first.weight': state['a.weight'], 'weight': state['b.weight']}
    with pytest.raises(ValueError, match=r"x: do not know the key 'b\.weight' \(1,\)"):
        rename(state, [(r'a\..*', 'a')], 'x')
    with pytest.raises(ValueError, match=r"x: do not know the key 'b\.count'$"):
        rename({'b.count': torch.tensor(3)}, [(r'a\..*', 'a')], 'x')


def test_numbers_of_stages():
    state = {f'stages.{i}.w': torch.ones(1) for i in (1, 2, 10)} | {'head.stages.1.w': 0}
    assert list(count_from_zero(state)) == [
        'stages.0.w',
        'stages.1.w',
        'stages.9.w',
        'head.stages.1.w',
    ]
    state = dict.fromkeys(
        ['stages.0.w', 'next.0.w', 'next.1.w', 'stages.2.blocks.11.w', 'last.norm.w', 'head.w']
    )
    assert list(place_reductions(state)) == [
        'stages.0.w',
        'stages.1.downsample.w',
        'stages.2.downsample.w',
        'stages.2.blocks.11.w',
        'stages.2.norm.w',
        'head.w',
    ]


def test_sources(monkeypatch):
    with pytest.raises(KeyError, match="'nat' is registered already"):
        register('nat', SOURCES['nat'])
    with pytest.raises(KeyError, match="unknown checkpoint source 'x': choose one of"):
        convert(STATE, 'x')
    strange = Source('a test', lambda keys: 'a.weight' in keys, dict)
    monkeypatch.setitem(SOURCES, 'x', strange)
    assert detect(STATE) == detect({f'backbone.{k}': v for k, v in STATE.items()}) == 'x'
    monkeypatch.setitem(SOURCES, 'y', strange)
    with pytest.raises(ValueError, match=r"several sources, name one of \['x', 'y'\]"):
        detect(STATE)
    assert convert(STATE, 'y') == STATE


def test_what_no_source_knows_stays():
    state = NAT(
        dict(embed_dim=8, depths=[1], heads=[1], mlp_ratio=2.0, layer_scale=None), out_indices=(0,)
    ).state_dict()
    assert detect(state) is None
    assert convert(state) == state
    assert convert(state) is not state
    whole = {f'backbone.{k}': v for k, v in state.items()} | {'decode_head.w': torch.ones(1)}
    assert convert(whole) == whole
