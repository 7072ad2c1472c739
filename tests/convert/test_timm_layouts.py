"""What files of timm and of the official classifiers have besides maps, and what we have not.

That maps are those of the libraries is in ``test_peers.py``.
"""

import argparse
import dataclasses
import re

import pytest
import torch
from torch.nn import functional as F

from hybrid_mm.backbones import BoTNet, CoAtNet, HaloNet, MaxViT, MViTv2, ViT
from hybrid_mm.backbones.frames import strict_weights
from hybrid_mm.convert import convert, detect

PluginResNet = pytest.importorskip('hybrid_mm.openmmlab.plugin_resnet').PluginResNet

VIT = dict(
    arch=dict(embed_dim=8, heads=2, depths=[1, 1]), patch_size=8, img_size=32, out_indices=(0, 1)
)


def official(model):
    """State dict of a ViT under timm's names."""
    state = {}
    for key, value in model.state_dict().items():
        key = re.sub(r'stages\.(\d)\.blocks\.0', r'blocks.\1', key).replace('stages.1.norm', 'norm')
        key = key.replace('stem.position', 'pos_embed').replace('stem.class_token', 'cls_token')
        key = re.sub(r'attn\.relative\.rel', 'attn.rel_pos', key)
        state[re.sub(r'gamma(\d)', r'ls\1.gamma', key).replace('stem.', 'patch_embed.')] = value
    return state


@pytest.fixture
def listed(monkeypatch):
    """Lines that loading logs."""
    lines = []
    monkeypatch.setattr(strict_weights, 'print_log', lambda text, *unused: lines.append(text))
    return lines


def load(model, state, path):
    """Into a network, by a file."""
    torch.save(state, path)
    model.load_pretrained(str(path))
    return model.eval()


def same_maps(model, other, size=32):
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        return all(torch.equal(a, b) for a, b in zip(model.eval()(x), other.eval()(x), strict=True))


HEADS = {
    'head.weight': (3, 8),
    'head.bias': (3,),
    'pre_logits.fc.weight': (8, 8),
    'pre_logits.fc.bias': (8,),
    'fc_norm.weight': (8,),
    'attn_pool.latent': (1, 1, 8),
    'attn_pool.mlp.fc1.weight': (16, 8),
}


def test_heads_of_vit_are_left_out(drawn, listed, tmp_path):
    source = drawn(ViT(**VIT, pretrain_img_size=32))
    heads = {key: torch.ones(shape) for key, shape in HEADS.items()}
    model = load(ViT(**VIT, pretrain_img_size=32), official(source) | heads, tmp_path / 'a.pth')
    assert same_maps(model, source)
    (line,) = listed
    assert 'left out head (' in line
    assert all(f'head.{part}' in line for part in ('bias', 'pre_logits', 'norm', 'attn_pool'))


@pytest.mark.parametrize('embedded', [True, False])
def test_positions_with_and_without_one_of_a_class_token(drawn, embedded, tmp_path):
    """24 patches and a class token are 25, as many as 5 x 5: the network tells which they are."""
    size = dict(pretrain_img_size=(32, 48) if embedded else 40)
    source = drawn(ViT(**VIT, **size))
    state = official(source)
    if not embedded:
        source.stem.position.data[:, 0] = 0
        state['pos_embed'] = source.stem.position[:, 1:]
    assert state['pos_embed'].shape[1] == 25
    model = load(ViT(**VIT, **size), state, tmp_path / 'a.pth')
    assert torch.equal(model.stem.position, source.stem.position)
    # into a map of another size
    larger = load(ViT(**VIT, pretrain_img_size=80), state, tmp_path / 'b.pth')
    patches = state['pos_embed'].transpose(1, 2).unflatten(2, (5, 5))
    patches = F.interpolate(patches, (10, 10), mode='bicubic', align_corners=False)
    expected = patches.flatten(2).transpose(1, 2)
    torch.testing.assert_close(larger.stem.position[:, 1:], expected)
    assert not larger.stem.position[:, 0].any()


def test_patches_of_linear_layers(drawn, tmp_path):
    """Files from before timm had convolutions there."""
    source = drawn(ViT(**VIT, pretrain_img_size=32))
    state = official(source)
    state['patch_embed.proj.weight'] = state['patch_embed.proj.weight'].flatten(1)
    model = load(ViT(**VIT, pretrain_img_size=32), state, tmp_path / 'a.pth')
    assert same_maps(model, source)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(dist_token=(1, 1, 8)), 'dist_token'),
        (dict(reg_token=(1, 4, 8)), "'reg_token' .* register tokens, which our ViT does not have"),
        (dict(register_tokens=(1, 4, 8)), "'register_tokens' .* register tokens"),
        ({'blocks.0.attn.q_norm.weight': (4,)}, r"'blocks\.0\.attn\.q_norm.* queries and keys"),
        ({'blocks.1.mlp.norm.weight': (16,)}, r"'blocks\.1\.mlp\.norm.* within attention and MLP"),
        ({'blocks.0.mlp.w12.weight': (32, 8)}, 'gated MLPs'),
        ({'blocks.0.mlp.fc1.weight': (64, 8)}, r"fc1\.weight' \(64, 8\) beside .* gated MLPs"),
        ({'blocks.0.attn.q_bias': (8,)}, 'without one of keys'),
        ({'blocks.0.attns.0.norm.weight': (8,)}, 'parallel attention and MLP'),
        ({'blocks.0.in_norm.weight': (8,)}, 'parallel attention and MLP'),
        ({'blocks.0.attn.rope.freqs': (8,)}, 'positions of this kind'),
        ({'blocks.0.strange.weight': (8,)}, r"do not know the key 'blocks\.0\.strange\.weight'"),
    ],
)
def test_what_our_vit_lacks_is_named(changes, message):
    state = official(ViT(**VIT, pretrain_img_size=32))
    with pytest.raises(ValueError, match=message):
        convert(state | {key: torch.ones(shape) for key, shape in changes.items()})


@pytest.mark.parametrize('layout', ['timm', 'official', 'mmpretrain'])
def test_necks_of_segment_anything_are_left_out(drawn, listed, layout, tmp_path):
    kwargs = dict(VIT, pretrain_img_size=32, class_token=False, relative=True, window_size=2)
    source = drawn(ViT(**kwargs))
    source.stem.position.data[:, 0] = 0
    state = official(source)
    state['pos_embed'] = state['pos_embed'][:, 1:].unflatten(1, (4, 4))
    name = 'channel_reduction' if layout == 'mmpretrain' else 'neck'
    state |= {f'{name}.0.weight': torch.ones(4, 8, 1, 1), f'{name}.1.bias': torch.ones(4)}
    if layout == 'official':
        state = {f'image_encoder.{key.replace("mlp.fc", "mlp.lin")}': state[key] for key in state}
        state['mask_decoder.iou_token.weight'] = torch.ones(1, 8)
        assert detect(state) == 'segment-anything'
    elif layout == 'mmpretrain':
        for old, new in (
            (r'^blocks\.(\d)\.norm', r'layers.\1.ln'),
            (r'^blocks\.(\d)\.mlp\.fc1', r'layers.\1.ffn.layers.0.0'),
            (r'^blocks\.(\d)\.mlp\.fc2', r'layers.\1.ffn.layers.1'),
            (r'^blocks\.', 'layers.'),
            (r'\.proj\.', '.projection.'),
        ):
            state = {
                re.sub(old, new, key) if new != '.projection.' or 'embed' in key else key: value
                for key, value in state.items()
            }
        state = {f'backbone.{key}': value for key, value in state.items()}
    model = load(ViT(**kwargs), state, tmp_path / 'a.pth')
    assert same_maps(model, source, 48)
    (line,) = listed
    assert 'neck (neck.0.weight, neck.1.bias)' in line
    assert ('mask_decoder (' in line) == (layout == 'official')


@pytest.mark.parametrize('in_attention', [True, False])
@pytest.mark.parametrize('wrapped', [True, False])
def test_class_token_of_mvitv2(drawn, listed, in_attention, wrapped, tmp_path):
    """Of ImageNet-21k: 19168 classes; into the form for detection, of another image."""
    kwargs = dict(arch=dict(embed_dim=4, heads=1, depths=[1, 2, 1, 1]), dim_mul_in_att=in_attention)
    source = drawn(MViTv2(**kwargs, img_size=64, window_size=None, out_indices=(3,)))
    starts, state = [0, 1, 3, 4], {'cls_token': torch.ones(1, 1, 4)}
    for key, value in source.state_dict().items():
        key = re.sub(
            r'stages\.(\d)\.blocks\.(\d)',
            lambda match: f'blocks.{starts[int(match[1])] + int(match[2])}',
            key,
        )
        key = key.replace('attn.relative.rel', 'attn.rel_pos').replace('stages.3.norm', 'norm')
        state[key.replace('stages.0.embed', 'patch_embed')] = value
    channels = source.stage_channels[-1]
    state |= {'head.projection.weight': torch.ones(19168, channels)}
    assert detect(state) == 'mvitv2'
    model = MViTv2(**kwargs, img_size=(128, 96), out_indices=(1, 3))
    load(model, dict(model_state=state) if wrapped else state, tmp_path / 'a.pth')
    line = listed[0]
    assert 'head (head.class_token, head.weight)' in line
    table = 'stages.3.blocks.0.attn.relative.rel_h'
    old, new = source.state_dict()[table], model.state_dict()[table]
    assert len(new) > len(old)
    expected = F.interpolate(old.t()[None], len(new), mode='linear', align_corners=False)
    torch.testing.assert_close(new, expected[0].t())
    own = model.state_dict()
    shared = {k: v for k, v in source.state_dict().items() if 'rel_' not in k}
    assert all(torch.equal(own[key], value) for key, value in shared.items())


def test_a_training_checkpoint_of_timm(drawn, tmp_path):
    """It holds a Namespace and two sets of weights, of which the trained ones count."""
    arch = dict(depths=[1] * 4, channels=[8, 8, 8, 16], attention=[False] * 3 + [True])
    arch |= dict(stem=dict(kind='3x3', channels=8, pool=False), heads=[2] * 4, block_size=4)
    source = drawn(HaloNet(dict(arch, final=12), final_conv=True))
    state = {}
    for key, value in source.state_dict().items():
        key = key.replace('stages.3.final.norm', 'final_conv.bn')
        key = key.replace('stages.3.final', 'final_conv')
        key = re.sub(r'stem\.layers\.0\.', 'stem.', key).replace('stem.norm', 'stem.bn')
        key = re.sub(r'blocks\.(\d)\.', r'\1.', key)
        attends = key.startswith('stages.3.0')
        key = re.sub(r'\.conv([13])\.', r'.conv\1_1x1.conv.', key)
        key = re.sub(r'\.norm([13])\.', r'.conv\1_1x1.bn.', key)
        key = key.replace('.norm2.', '.post_attn.' if attends else '.conv2_kxk.bn.')
        key = key.replace('.conv2.', '.self_attn.' if attends else '.conv2_kxk.conv.')
        key = key.replace('shortcut.norm', 'shortcut.bn')
        table = re.fullmatch(r'(.*)relative\.rel_(.)', key)
        if table:
            axis = dict(h='height', w='width')[table[2]]
            key, value = f'{table[1]}pos_embed.{axis}_rel', value[0]
        state[key] = value
    average = {key: torch.zeros_like(value) for key, value in state.items()}
    args = argparse.Namespace(model='halonet', lr=0.1)
    checkpoint = dict(epoch=3, arch='halonet', state_dict=state, state_dict_ema=average, args=args)
    model = load(HaloNet(dict(arch, final=12)), checkpoint, tmp_path / 'a.pth.tar')
    x = torch.rand(1, 3, 64, 64)
    maps = []
    source.stages[3].blocks[-1].register_forward_hook(lambda *a: maps.append(a[-1]))
    with torch.no_grad():
        source.eval()(x)
        assert torch.equal(model(x)[-1], maps[0])


@pytest.mark.parametrize('module', ['', 'module.'])
def test_deep_stems_of_timm(drawn, module, tmp_path):
    kwargs = dict(depth=50, base_channels=4, stem_channels=8, deep_stem=True, avg_down=True)
    plugins = [dict(cfg=dict(type='hybrid_mm.ECA'), position='after_conv3')]
    source = drawn(PluginResNet(**kwargs, plugins=plugins))
    state = {}
    for key, value in source.state_dict().items():
        key = re.sub(r'^stem\.7', 'bn1', key)
        key = re.sub(r'^stem\.', 'conv1.', key).replace('.eca.', '.se.')
        state[module + key] = value
    state[f'{module}fc.weight'] = torch.ones(5, 128)
    model = load(PluginResNet(**kwargs, plugins=plugins), state, tmp_path / 'a.pth')
    assert same_maps(model, source, 64)
    strange = {key.removeprefix(module): value for key, value in state.items()}
    assert detect(strange | {'maxpool.0.weight': torch.ones(1)}) == 'attention-modules'


def _fields(config):
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


EXPRESSED = {
    'byoanet': {
        'botnet26t_256', 'botnet50ts_256', 'eca_botnext26ts_256', 'eca_halonext26ts', 'halonet26t',
        'halonet50ts', 'halonet_h1', 'haloregnetz_b', 'sebotnet33ts_256', 'sehalonet33ts',
    },
    'maxxvit': {
        *(f'coatnet_{i}_224' for i in range(6)), *(f'coatnet_{i}_rw_224' for i in range(4)),
        *(f'coatnet_{i}_rw_224' for i in ('nano', 'pico', 'rmlp_nano')),
        *(f'coatnet_rmlp_{i}_224' for i in ('0_rw', '1_rw', '1_rw2', '2_rw', '3_rw')),
        'coatnet_rmlp_2_rw_384', 'maxvit_rmlp_base_rw_384', 'maxvit_rmlp_small_rw_224',
        *(f'maxvit_rmlp_{i}_rw_256' for i in ('pico', 'nano', 'tiny', 'small')),
        *(f'maxvit_{i}_rw_256' for i in ('pico', 'nano', 'tiny')), 'maxvit_rmlp_base_rw_224',
        'maxvit_tiny_rw_224', 'test_coatnet', 'test_maxvit',
        *(f'maxvit_{i}_tf_{size}' for i in ('tiny', 'small', 'base', 'large', 'xlarge')
          for size in (224, 384, 512)),
    },
}  # fmt: skip
REFUSED = {
    'halo2botnet50ts_256': r"self_attn_layer of \w+: 'halo' cannot be expressed",
    'lambda': r"self_attn_layer of \w+: 'lambda' cannot be expressed",
    'lamhalobotnet50ts_256': 'self_attn_layer of',
    'coatnet_bn_0_rw_224': r'transformer_cfg\.norm_layer',
    'coatnet_nano_cc_224': 'block_type',
    'coatnext': r'conv_cfg\.block_type',
    'maxvit_tiny_pm_256': 'block_type',
    'maxxvit': r'conv_cfg\.block_type',
}


@pytest.mark.slow
@pytest.mark.parametrize('module', ['byoanet', 'maxxvit'])
def test_every_name_of_timm(module):
    """Its tensors are those of ours, by our name and by its fields; else a field is named."""
    timm = pytest.importorskip('timm')
    configs = getattr(timm.models, module).model_cfgs
    for name in timm.list_models(module=module):
        bare, size = re.fullmatch(r'(.+?)(?:_(\d{3}))?', name).groups()
        network = {'byoanet': HaloNet, 'maxxvit': CoAtNet}[module]
        if 'bot' in name or 'max' in name:
            network = {'byoanet': BoTNet, 'maxxvit': MaxViT}[module]
        config = _fields(configs[name if name in configs else bare])
        size = int(size or (160 if 'test' in name else 256 if module == 'byoanet' else 224))
        kwargs = {
            BoTNet: dict(canvas_size=size),
            MaxViT: dict(window_size=size // 32),
            CoAtNet: dict(img_size=size),
        }.get(network, {})
        with torch.device('meta'):
            if name not in EXPRESSED[module]:
                (message,) = [REFUSED[part] for part in REFUSED if name.startswith(part)]
                with pytest.raises(ValueError, match=message):
                    network(config, **kwargs)
                continue
            state = convert(timm.create_model(name).state_dict())
            state = {key: value for key, value in state.items() if not key.startswith('head.')}
            our_name = re.sub('^(maxvit|coatnet)_', '', bare).removesuffix('_tf')
            our_name = our_name if module == 'byoanet' else our_name.replace('_', '-')
            archs = [config] if 'test' in name else [config, our_name]
            for arch in archs:
                network(arch, **kwargs).load_strictly(dict(state), name)
