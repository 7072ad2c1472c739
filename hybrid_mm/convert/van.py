"""Layouts of VAN and VAN-LSKA checkpoints.

The official files of both papers and the ports in MMPretrain, MMSegmentation and transformers hold
the same tensors under different names; no tensor is transposed or fused. Stages count from 1, but
in transformers.
"""

import re

from hybrid_mm.convert.core import BATCH_NORM, LEAF, Source, StateDict, register, rename
from hybrid_mm.convert.huggingface import register_huggingface

_CLASSIC = dict(embed='proj', block='block', dwconv='dwconv.dwconv')
_PORT = dict(embed='projection', block='blocks', dwconv='dwconv')

# official name of each convolution of the attention -> ours
_LKA = {'conv0': 'local', 'conv_spatial': 'dilated'}
_LKA_PORT = {'DW_conv': 'local', 'DW_D_conv': 'dilated'}
_LSKA = {
    'conv0h': 'local_h',
    'conv0v': 'local_v',
    'conv_spatial_h': 'dilated_h',
    'conv_spatial_v': 'dilated_v',
}
_LSKA_PORT = {
    'DW_conv_h': 'local_h',
    'DW_conv_v': 'local_v',
    'DW_D_conv_h': 'dilated_h',
    'DW_D_conv_v': 'dilated_v',
}
# there are no official files for these two; the names follow the official style
_LKA_TRIVIAL = {'conv0': 'full'}
_LSKA_TRIVIAL = {'conv0h': 'full_h', 'conv0v': 'full_v'}

# name -> (description, names of the network's parts, names of the attention's convolutions)
_LAYOUTS = {
    'van': ('VAN-Classification, VAN-Segmentation', _CLASSIC, _LKA),
    'van-mmpretrain': ('VAN of MMPretrain', _PORT, _LKA_PORT),
    'van-mmseg': ('VAN of MMSegmentation (projects/van)', {**_CLASSIC, 'dwconv': 'dwconv'}, _LKA),
    'van-lka-trivial': ('VAN with LKA-trivial in VAN-Classification style', _CLASSIC, _LKA_TRIVIAL),
    'lska': ('VAN-LSKA classification code', _CLASSIC, _LSKA),
    'lska-dense': ('VAN-LSKA detection and segmentation code', _PORT, _LSKA_PORT),
    'lska-trivial': ('VAN with LSKA-trivial in VAN-Classification style', _CLASSIC, _LSKA_TRIVIAL),
}


def _stage(number: str) -> str:
    return f'stages.{int(number) - 1}'


def _converter(name: str, parts: dict[str, str], convs: dict[str, str]):
    block = rf'{parts["block"]}(?P<stage>\d+)\.(?P<block>\d+)\.'
    gate = r'attn\.spatial_gating_unit\.'
    inner = {gate + re.escape(k): f'attn.lka.{v}' for k, v in convs.items()}
    inner[gate + 'conv1'] = 'attn.lka.pointwise'
    inner[r'attn\.proj_1'], inner[r'attn\.proj_2'] = 'attn.proj_in', 'attn.proj_out'
    inner[r'mlp\.' + re.escape(parts['dwconv'])] = 'mlp.dwconv'
    inner |= {k: k.replace('\\', '') for k in (r'norm1', r'norm2', r'mlp\.fc1', r'mlp\.fc2')}
    embed = r'patch_embed(?P<stage>\d+)\.'
    leaf = r'\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)'
    rules = [
        (embed + parts['embed'] + leaf, r'\g<stage>.embed.conv.\g<leaf>'),
        (embed + 'norm' + leaf, r'\g<stage>.embed.norm.\g<leaf>'),
        (block + r'(?P<leaf>layer_scale_[12])', r'\g<stage>.blocks.\g<block>.\g<leaf>'),
        *(
            (block + old + leaf, rf'\g<stage>.blocks.\g<block>.{new}.\g<leaf>')
            for old, new in inner.items()
        ),
        (r'norm(?P<stage>\d+)' + leaf, r'\g<stage>.norm.\g<leaf>'),
        (r'head\.(?:fc\.)?(?P<leaf>weight|bias)', r'head.\g<leaf>'),
    ]

    def convert(state: StateDict) -> StateDict:
        renamed = rename(state, rules, name)
        return {
            re.sub(r'^(\d+)(?=\.)', lambda m: _stage(m[1]), key): v for key, v in renamed.items()
        }

    return convert


def _matcher(parts: dict[str, str], convs: dict[str, str]):
    need = [
        re.compile(rf'patch_embed\d+\.{parts["embed"]}\.weight'),
        re.compile(rf'{parts["block"]}\d+\.\d+\.mlp\.{re.escape(parts["dwconv"])}\.weight'),
    ]
    gate = re.compile(rf'{parts["block"]}\d+\.\d+\.attn\.spatial_gating_unit\.(\w+)\.weight')

    def matches(keys: set[str]) -> bool:
        found = {m[1] for m in map(gate.fullmatch, keys) if m}
        return found == {*convs, 'conv1'} and all(any(map(p.fullmatch, keys)) for p in need)

    return matches


for _name, (_description, _parts, _convs) in _LAYOUTS.items():
    register(
        _name, Source(_description, _matcher(_parts, _convs), _converter(_name, _parts, _convs))
    )

_STAGE = r'encoder\.stages\.(\d+)\.'
_BLOCK = _STAGE + r'layers\.(\d+)\.'
_PARTS = {
    r'attention\.pre_projection\.conv': 'attn.proj_in',
    r'attention\.attention_layer\.attention\.depth_wise': 'attn.lka.local',
    r'attention\.attention_layer\.attention\.depth_wise_dilated': 'attn.lka.dilated',
    r'attention\.attention_layer\.attention\.point_wise': 'attn.lka.pointwise',
    r'attention\.post_projection': 'attn.proj_out', r'mlp\.in_dense': 'mlp.fc1',
    r'mlp\.depth_wise': 'mlp.dwconv', r'mlp\.out_dense': 'mlp.fc2',
}  # fmt: skip
register_huggingface(
    'van-huggingface',
    'VAN (transformers up to 4.39), whose norms of maps are ours with ln_eps=1e-6',
    'van',
    [
        (rf'{_STAGE}embeddings\.convolution{LEAF}', r'stages.\1.embed.conv.\2'),
        (rf'{_STAGE}embeddings\.normalization{BATCH_NORM}', r'stages.\1.embed.norm.\2'),
        (rf'{_STAGE}normalization{LEAF}', r'stages.\1.norm.\2'),
        # spelt so
        (rf'{_BLOCK}pre_normomalization{BATCH_NORM}', r'stages.\1.blocks.\2.norm1.\3'),
        (rf'{_BLOCK}post_normalization{BATCH_NORM}', r'stages.\1.blocks.\2.norm2.\3'),
        *(
            (rf'{_BLOCK}{theirs}{LEAF}', rf'stages.\1.blocks.\2.{ours}.\3')
            for theirs, ours in _PARTS.items()
        ),
        (rf'{_BLOCK}attention_scaling\.weight', r'stages.\1.blocks.\2.layer_scale_1'),
        (rf'{_BLOCK}mlp_scaling\.weight', r'stages.\1.blocks.\2.layer_scale_2'),
    ],
    _BLOCK + r'attention\.attention_layer\.attention\.depth_wise_dilated\.weight',
    dict,
    unused=rf'layernorm{LEAF}',
)
