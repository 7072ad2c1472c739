"""What all layouts share: wrappers of files, comparison with a model, renaming."""

import pytest
import torch

from hybrid_mm.backbones import NAT, ViT
from hybrid_mm.convert import convert, detect, differences, unwrap
from hybrid_mm.convert.core import (
    AVERAGES,
    SOURCES,
    WRAPPERS,
    Source,
    averages,
    count_from_zero,
    misfit,
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


ONES, TWOS = ({'a.weight': torch.full((2,), value)} for value in (1.0, 2.0))


@pytest.mark.parametrize('key', AVERAGES)
def test_averages_can_be_chosen(key):
    both = {'epoch': 3, key: TWOS, 'model': ONES, 'optimizer': {'state': {0: dict(m=STATE)}}}
    assert unwrap(both) == ONES and averages(both) == [key]
    assert unwrap(both, key) == TWOS and unwrap(both, 'model') == ONES
    assert averages({key: TWOS}) == averages({'model': ONES, key: {'decay': 0.9}}) == []
    with pytest.raises(ValueError, match=rf"no 'x' in it; of its keys \['{key}', 'model', 'opt"):
        unwrap(both, 'x')
    with pytest.raises(ValueError, match='no weights found'):
        unwrap({**both, 'x': {'decay': 0.9}}, 'x')


def test_containers_in_containers():
    for saved in ({'model': {'state_dict': ONES}}, {'model_ema': {'module': ONES, 'decay': 0.9}},
                  {'model': {'model': ONES, 'optimizer': {'state': STATE}}}):  # fmt: skip
        assert unwrap(saved) == ONES
    assert unwrap({'runs': {'best': {'net': ONES}}}, 'runs.best.net') == ONES
    assert unwrap({'runs': {'best': {'net': ONES}}}, 'runs.best') == ONES
    assert unwrap({'a.b': ONES, 'a': {'b': TWOS}}, 'a.b') == ONES
    # a part of the network is not a container of it
    parts = {'params': {'net': {'kernel': torch.ones(1)}, 'Dense_0': {'kernel': torch.ones(2)}}}
    assert unwrap(parts).keys() == {'net/kernel', 'Dense_0/kernel'}
    parts = {'model': {'model': {'a': torch.ones(1)}, 'b': torch.ones(2)}}
    assert unwrap(parts).keys() == {'model/a', 'b'}


@pytest.mark.parametrize('prefixes', [('_orig_mod.',), ('module.', '_orig_mod.'), ('ema.',)])
def test_prefixes_of_wrappers(prefixes):
    state = {f'{"".join(prefixes)}{key}': value for key, value in STATE.items()}
    assert unwrap(state) == STATE
    assert unwrap({**state, 'initted': torch.tensor(True), 'step': torch.tensor(3)}) == STATE
    assert unwrap({**state, 'b': torch.ones(1)}).keys() == {*state, 'b'}


def test_flax():
    """Nested dicts, with the running statistics of batch norms beside the parameters."""
    params = {'Conv_0': {'kernel': torch.ones(1)}, 'cls': torch.ones(2)}
    saved = dict(step=3, params=params, opt_state={'0': {'trace': params}})
    assert unwrap(saved).keys() == unwrap(params).keys() == {'Conv_0/kernel', 'cls'}
    assert unwrap({**saved, 'batch_stats': None}).keys() == {'Conv_0/kernel', 'cls'}
    saved['batch_stats'] = {'BatchNorm_0': {'mean': torch.ones(1)}}
    assert unwrap(saved).keys() == {'Conv_0/kernel', 'cls', 'BatchNorm_0/mean'}
    alone = {**params, 'opt_state': {'mu': params}, 'optimizer': {'target': params}}
    assert unwrap(alone).keys() == {'Conv_0/kernel', 'cls'}
    # dicts beside the weights of PyTorch are none of them
    assert unwrap({**ONES, 'extra': {'b': torch.ones(1)}, 3: torch.ones(1)}) == ONES


def test_misfits():
    model = NAT(
        dict(embed_dim=8, depths=[1], heads=[1], mlp_ratio=2.0, layer_scale=None), out_indices=(0,)
    ).state_dict()
    assert misfit(model, model, 'NAT') is None
    assert misfit({'backbone.' + key: v for key, v in model.items()}, model, 'NAT') is None
    part = dict(list(model.items())[: len(model) // 2 + 1])
    assert misfit({**part, 'head.weight': torch.ones(1)}, model, 'NAT') is None
    strange = {f'layer{i}.0.strange': torch.ones(1) for i in range(5)}
    assert misfit(strange, model, 'NAT').startswith(
        'No layout that is known has such names: layer0.0.strange, layer1.0.strange, '
        f'layer2.0.strange, ...; nor has NAT, with {next(iter(model))}'
    )
    assert 'hybrid_mm weights check FILE` says what' in misfit(strange, model, 'NAT')
    assert misfit({**strange, **dict(list(model.items())[:2])}, model, 'NAT') is not None
    gate = 'block1.0.attn.spatial_gating_unit'
    names = [f'{gate}.{conv}.weight' for conv in ('conv0', 'conv_spatial', 'conv1')]
    names += ['patch_embed1.proj.weight', 'block1.0.mlp.dwconv.dwconv.weight']
    van = {name: torch.ones(1) for name in names}
    assert detect(van) == 'van'
    text = misfit(van, model, 'NAT')
    assert text == (
        f'It is a checkpoint of {SOURCES["van"].description} (layout van), and the model is NAT'
    )
    assert misfit(convert(van), model, 'NAT', 'van') == text
    assert misfit(van, van, 'a network of official names') is None


@pytest.mark.parametrize('outer', ['model.', 'encoder.', 'model.net.'])
def test_names_of_modules_around_the_network(outer):
    """Lightning and the like put a whole network into a module."""
    peer = {
        'patch_embed.proj.weight': torch.rand(8, 3, 4, 4),
        'blocks.0.attn.qkv.weight': torch.rand(24, 8),
        'pos_embed': torch.rand(1, 5, 8),
    }
    state = {outer + key: value for key, value in peer.items()}
    assert detect(state) == 'vit'
    expected = convert(peer)
    for found in (convert(state), convert(state, 'vit')):
        assert found.keys() == expected.keys()
    assert detect({**state, 'loss.weight': torch.ones(1)}) is None


def test_detr_is_no_gcnet():
    """Its head has a layer of the same name as the old ones."""
    layer = {'bbox_head.fc_cls.weight': torch.ones(3, 4)}
    assert detect(layer) == 'gcnet-mmdet1'
    for other in ('encoder.layers.0.norms.0.weight', 'bbox_head.transformer.encoder.norm.weight'):
        assert detect(layer | {other: torch.ones(4)}) is None


def test_deformable_convolutions_are_no_lesa():
    """Those of MMDetection's ResNets have a name that is within LESA too."""
    names = ('conv1.weight', 'bn1.weight', 'conv2.conv_offset.weight', 'conv2.conv_offset.bias')
    state = {f'layer1.0.{name}': torch.ones(1) for name in names}
    assert detect(state) is None
    assert detect(state | {'layer1.0.conv2.reasoning.1.weight': torch.ones(1)}) == 'lesa'


def test_a_plain_network_of_another_form_is_no_other_network():
    """Its blocks are numbered through in a file, and divided into stages in ours."""
    arch = dict(embed_dim=8, heads=1, depths=[1, 1])
    model = ViT(arch=arch, patch_size=4, img_size=8, pretrain_img_size=8, out_indices=(0, 1))
    state = {key.replace('stages.0.', '').replace('stages.1.blocks.0', 'blocks.1'): value
             for key, value in model.state_dict().items()}  # fmt: skip
    state['blocks.0.gamma1'] = torch.ones(8)
    assert misfit(state, model.state_dict(), 'ViT', 'vit') is None
    assert 'the model is NAT' in misfit(state, NAT('mini').state_dict(), 'NAT', 'vit')


def test_tensors_that_are_not_plain():
    plain = torch.tensor([0.0, 0.5, 0.0])
    found = unwrap(
        {
            'a.quantized': torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
            'a.sparse': plain.to_sparse(),
            'a.rows': plain[None].to_sparse_csr(),
        }
    )
    for tensor in found.values():
        assert tensor.layout is torch.strided and not tensor.is_quantized
        assert tensor.flatten().tolist() == plain.tolist()
    huge = torch.sparse_coo_tensor([[0], [0]], torch.ones(1), (1 << 20, 1 << 20))
    nested = torch.nested.nested_tensor([plain, plain[:2]])
    for tensor, text in (
        (plain.to('meta'), 'without numbers'),
        (nested, 'without a shape'),
        (huge, 'sparse tensor of 1099511627776 numbers'),
    ):
        with pytest.raises(ValueError, match=rf"^'a\.x' is a .*{text}$"):
            unwrap({'a.x': tensor})


def test_the_perception_encoder_is_no_vit():
    """Its rotary positions are computed, so that only other parts tell it."""
    state = {
        'patch_embed.proj.weight': torch.rand(8, 3, 4, 4),
        'blocks.0.attn.qkv.weight': torch.rand(24, 8),
        'pos_embed': torch.rand(1, 5, 8),
        'norm_pre.weight': torch.ones(8),
    }
    assert 'stem.pre_norm.weight' in convert(state)
    with pytest.raises(ValueError, match='rotary positions'):
        convert(state | {'attn_pool.latent': torch.ones(1, 1, 8)})
