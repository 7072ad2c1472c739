"""MaxViT and CoAtNet told by the fields of timm's ``MaxxVitCfg``.

What timm 1.0.31 has is stored: of stem and stages the number of tensors and of parameters, and a
digest of their names and sizes. Where timm is installed, the stored values are compared with it.
"""

import dataclasses
import hashlib
import re

import pytest
import torch

from hybrid_mm.backbones import CoAtNet, MaxViT

COAT = dict(pre_norm_act=True, expand_output=False, output_bias=False, act_layer='silu')
COAT |= dict(stride_mode='pool', attn_act_layer='relu')
MAX = dict(expand_output=False, output_bias=False, attn_ratio=1 / 16, act_layer='silu')
PICO = dict(MAX, output_bias=True, attn_ratio=0.25)
EARLY = dict(COAT, attn_early=True)
DW = dict(COAT, stride_mode='dw')
SILU = dict(DW, attn_act_layer='silu')
NO_BIAS = dict(expand_first=False, shortcut_bias=False)
RMLP = dict(expand_first=False, rel_pos_type='mlp')
SCALED = dict(init_values=1e-6)
TF = dict(
    conv_cfg=dict(norm_eps=1e-3, act_layer='gelu_tanh', padding='same'),
    transformer_cfg=dict(
        norm_eps=1e-5, act_layer='gelu_tanh', head_first=False, rel_pos_type='bias_tf'
    ),
    stem_bias=True,
)


def rw(conv, transformer=None):
    return dict(conv_cfg=conv, transformer_cfg=dict(expand_first=False, **(transformer or {})))


MLP = dict(rel_pos_type='mlp')
# channels of the first stage, depths, stem, other fields; tensors, parameters, digest
VARIANTS = {
    'coatnet_pico_rw': (64, (2, 3, 5, 2), (32, 64), rw(PICO), (171, 10337340, '20ba8f398b8d')),
    'coatnet_nano_rw': (
        64, (3, 4, 6, 3), (32, 64), rw(dict(PICO, stride_mode='pool')),
        (225, 14627220, 'b7e3001e0d15'),
    ),
    'coatnet_0_rw': (
        96, (2, 3, 7, 2), (32, 64), dict(conv_cfg=EARLY, transformer_cfg=NO_BIAS),
        (190, 26665026, '56b00382ccc1'),
    ),
    'coatnet_1_rw': (
        96, (2, 6, 14, 2), (32, 64),
        dict(conv_cfg=dict(EARLY, stride_mode='dw'), transformer_cfg=NO_BIAS),
        (320, 40950966, '0fbf779f449f'),
    ),
    'coatnet_2_rw': (128, (2, 6, 14, 2), (64, 128), rw(SILU), (321, 72841352, '623a63e64932')),
    'coatnet_3_rw': (
        192, (2, 6, 14, 2), (96, 192), rw(SILU, SCALED), (353, 163633356, 'a65e4cbca438'),
    ),
    'coatnet_rmlp_nano_rw': (
        64, (3, 4, 6, 3), (32, 64), rw(PICO, dict(MLP, rel_pos_dim=384)),
        (252, 14631092, 'dccc1086f998'),
    ),
    'coatnet_rmlp_0_rw': (96, (2, 3, 7, 2), (32, 64), rw(DW, MLP), (219, 26675538, '148fde0c74e1')),
    'coatnet_rmlp_1_rw': (
        96, (2, 6, 14, 2), (32, 64),
        dict(
            conv_cfg=dict(EARLY, pool_type='max'),
            transformer_cfg=dict(NO_BIAS, rel_pos_type='mlp', rel_pos_dim=384, pool_type='max'),
        ),
        (368, 40921446, '83c8e1e0b190'),
    ),
    'coatnet_rmlp_1_rw2': (
        96, (2, 6, 14, 2), (32, 64), rw(DW, MLP), (370, 40954086, 'fd5363c2e22f'),
    ),
    'coatnet_rmlp_2_rw': (
        128, (2, 6, 14, 2), (64, 128), rw(SILU, MLP | SCALED), (401, 72854216, 'ea1421a142bb'),
    ),
    'coatnet_rmlp_3_rw': (
        192, (2, 6, 14, 2), (96, 192), rw(SILU, MLP | SCALED), (401, 163612716, '68e5117421bb'),
    ),
    'coatnet_0': (96, (2, 3, 5, 2), 64, {}, (173, 23675692, 'd2b498257c50')),
    'coatnet_1': (96, (2, 6, 14, 2), 64, {}, (332, 40864648, '5f6204095d8f')),
    'coatnet_2': (128, (2, 6, 14, 2), 128, {}, (330, 72608096, '5802dd8dc5b0')),
    'coatnet_3': (192, (2, 6, 14, 2), 192, {}, (330, 163065360, '63c24f495085')),
    'coatnet_4': (192, (2, 12, 28, 2), 192, {}, (596, 271524384, 'cf597f79769f')),
    'maxvit_pico_rw': (32, (2, 2, 5, 2), (24, 32), rw(MAX), (436, 7195780, '96bc7d63bf14')),
    'maxvit_nano_rw': (64, (1, 2, 3, 1), (32, 64), rw(MAX), (280, 14931524, '294a1d9b6209')),
    'maxvit_tiny_rw': (64, (2, 2, 5, 2), (32, 64), rw(MAX), (436, 28543288, '7a9361ee8560')),
    'maxvit_rmlp_pico_rw': (
        32, (2, 2, 5, 2), (24, 32), rw(MAX, MLP), (502, 7258468, '527d9c4089e6'),
    ),
    'maxvit_rmlp_nano_rw': (
        64, (1, 2, 3, 1), (32, 64), rw(MAX, MLP), (322, 14987428, '57c42edc3a35'),
    ),
    'maxvit_rmlp_tiny_rw': (
        64, (2, 2, 5, 2), (32, 64), rw(MAX, MLP), (502, 28634872, 'f41f92e133f5'),
    ),
    'maxvit_rmlp_small_rw': (
        96, (2, 2, 5, 2), (32, 64), rw(MAX, MLP | SCALED), (547, 64124508, '485b088538a2'),
    ),
    'maxvit_rmlp_base_rw': (
        96, (2, 6, 14, 2), (32, 64), rw(MAX, MLP), (1088, 114774660, 'ac659277d7c5'),
    ),
    'maxvit_tiny_tf': (64, (2, 2, 5, 2), 64, TF, (452, 30139848, '8b4fe3ee093c')),
    'maxvit_small_tf': (96, (2, 2, 5, 2), 64, TF, (454, 67566828, '58e02767ea3e')),
    'maxvit_base_tf': (96, (2, 6, 14, 2), 64, TF, (974, 118106580, 'e21764d232e6')),
    'maxvit_large_tf': (128, (2, 6, 14, 2), 128, TF, (972, 209708912, '5195c595be4c')),
    'maxvit_xlarge_tf': (192, (2, 6, 14, 2), 192, TF, (972, 471051048, 'aa295c75318c')),
}  # fmt: skip


def fields(name):
    """The variant as a user of timm writes it."""
    channels, depths, stem, others, _ = VARIANTS[name]
    blocks = ('M',) * 4 if name.startswith('maxvit') else ('C', 'C', 'T', 'T')
    return dict(
        embed_dim=tuple(channels * 2**stage for stage in range(4)),
        depths=depths,
        stem_width=stem,
        block_type=blocks,
        **others,
    )


def network(arch, maxvit, **kwargs):
    with torch.device('meta'):
        return (MaxViT if maxvit else CoAtNet)(arch, **kwargs)


def timm_name(key, early, maxvit):
    """Name of a parameter in timm, written out independently of the converter."""
    key = re.sub(r'conv([13])\.(?=weight|bias)(?<!stem\.conv\d\.)', r'conv\1_1x1.', key)
    key = re.sub(r'blocks\.(.*)conv2\.', r'blocks.\1conv2_kxk.', key)
    key = key.replace('.gate.', '.se_early.' if early else '.se.')
    key = key.replace('shortcut.', 'shortcut.expand.').replace('relative_bias.fc', 'rel_pos.mlp.fc')
    key = key.replace('relative_bias.table', 'rel_pos.relative_position_bias_table')
    key = re.sub(r'gamma(\d)', r'ls\1.gamma', key)
    if maxvit:
        return key.replace('.grid.', '.attn_grid.').replace('.block.', '.attn_block.')
    return re.sub(r'(stages\.[23]\.blocks\.0\.norm1)\.', r'\1.norm.', key)


def told(names_and_sizes):
    lines = sorted(f'{name} {size}' for name, size in names_and_sizes)
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    return len(lines), sum(int(line.split()[1]) for line in lines), digest[:12]


# one of each kind; the others differ in size
QUICK = {
    *('coatnet_0', 'coatnet_pico_rw', 'coatnet_0_rw', 'coatnet_rmlp_nano_rw', 'coatnet_rmlp_1_rw'),
    *('maxvit_nano_rw', 'maxvit_rmlp_small_rw', 'maxvit_tiny_tf'),
}


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in VARIANTS]
)
def test_parameters_are_those_of_timm(name):
    model = network(fields(name), maxvit=name.startswith('maxvit'))
    early = model.arch.conv['gate_early']
    found = told(
        (timm_name(key, early, name.startswith('maxvit')), p.numel())
        for key, p in model.named_parameters()
    )
    assert found == VARIANTS[name][-1]


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
def test_stored_values_are_those_of_timm():
    maxxvit = pytest.importorskip('timm.models.maxxvit')
    for name, (*_, expected) in VARIANTS.items():
        cfg = maxxvit.model_cfgs[name]
        for key, value in fields(name).items():
            theirs = getattr(cfg, key)
            if dataclasses.is_dataclass(theirs):
                assert {k: getattr(theirs, k) for k in value} == value, name
            else:
                assert theirs == value, name
        with torch.device('meta'):
            model = maxxvit.MaxxVit(cfg, img_size=224)
        kept = [(k, p) for k, p in model.named_parameters() if k.startswith(('stem.', 'stages.'))]
        assert told((k, p.numel()) for k, p in kept) == expected, name


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
@pytest.mark.parametrize('ours, theirs', [('nano-rw', 'maxvit_nano_rw'), ('0-rw', 'coatnet_0_rw')])
def test_names_and_fields_are_one_variant(ours, theirs):
    """All settings that a named variant states, not only those that change shapes."""
    cls = MaxViT if theirs.startswith('maxvit') else CoAtNet
    named, told_by_fields = (cls.resolve_arch(arch).to_dict() for arch in (ours, fields(theirs)))
    for key in ('conv', 'attention'):
        told_by_fields[key] = {k: told_by_fields[key][k] for k in named[key]}
    assert named == told_by_fields


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
def test_a_dataclass_and_sizes_of_windows_and_heads():
    @dataclasses.dataclass
    class Fields:
        embed_dim: tuple = (16, 16, 16, 16)
        depths: tuple = (1, 1, 1, 1)
        block_type: tuple = ('M', 'M', 'M', 'M')
        transformer_cfg: object = None

    model = network(Fields(transformer_cfg=dict(dim_head=8, window_size=(3, 4), grid_size=2)), True)
    assert model.windows == {'block': (3, 4), 'grid': (2, 2)}
    assert model.stages[0].blocks[0].block.attn.heads == 2
    assert network(model.arch, True, window_size=5).windows == {'block': (5, 5), 'grid': (5, 5)}
    assert network(model.arch, True, head_width=4).stages[0].blocks[0].grid.attn.heads == 4


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
@pytest.mark.parametrize(
    'given, message',
    [
        (dict(conv_cfg=dict(block_type='convnext')), "conv_cfg.block_type='convnext' has no count"),
        (dict(transformer_cfg=dict(norm_layer='batchnorm2d')), "known are 'layernorm2d'"),
        (dict(block_type=('C', 'C', ('C', 'T'), 'T')), r"block_type=\('C', 'T'\) has no counter"),
        (dict(block_type=('M',) * 4), "CoAtNet: timm's block_type='M' has no counterpart"),
        (dict(transformer_cfg=dict(rel_pos='mlp')), 'timm has no field transformer_cfg.rel_pos'),
        (dict(transformer_cfg=dict(head_first=False)), 'transformer_cfg.head_first=False has no'),
        (dict(conv_cfg=dict(act_layer='mish')), "known are 'gelu', 'gelu_tanh', 'silu', 'relu'"),
        (dict(conv_cfg='mbconv'), 'arch.conv_cfg of CoAtNet must be a dict of fields of timm'),
        (dict(stem_width=64, dims=3), 'timm has no field dims'),
    ],
)
def test_errors_name_the_field(given, message):
    with pytest.raises(ValueError, match=message):
        network(given if 'stem_width' in given else dict(given, stem_width=64), maxvit=False)


def test_pools_that_are_padded_otherwise_are_named():
    conv = dict(padding='same', pool_type='avg')
    with pytest.raises(ValueError, match=r"conv_cfg\.pool_type='avg'"):
        CoAtNet(dict(conv_cfg=conv))
    conv = dict(stride_mode='pool', downsample_pool_type='max')
    with pytest.raises(ValueError, match=r"conv_cfg\.downsample_pool_type='max'"):
        CoAtNet(dict(conv_cfg=conv))
    network(dict(conv_cfg=dict(conv, stride_mode='dw')), maxvit=False)  # which does not read it
