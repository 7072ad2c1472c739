"""Layouts of ResNets with attention modules, of the official repositories, timm and MMPretrain.

The networks have torchvision's names (layer1.0.conv1 and so on), which MMDetection and
MMSegmentation share: these stay, and the modules get the names of our plugins. Where no ResNet was
published (coordinate attention, lambda layers) the keys are those of the official module under the
name of our plugin.
"""

import re

from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, rename

NAME = 'attention-modules'
_BLOCK = r'(?P<block>layer\d+\.\d+)\.'
_LEAF = r'\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)'

_TRUNK = {
    r'(?P<key>conv1|bn1|stem\.\d+)' + _LEAF: r'\g<key>.\g<leaf>',
    r'conv1\.(?P<i>\d)' + _LEAF: r'stem.\g<i>.\g<leaf>',
    _BLOCK + r'(?P<key>(?:conv|bn)\d|downsample\.\d)' + _LEAF: r'\g<block>.\g<key>.\g<leaf>',
    r'(?:head\.)?fc\.(?P<leaf>weight|bias)': r'head.\g<leaf>',
}


def _in_blocks(names: dict[str, str]) -> dict[str, str]:
    return {_BLOCK + old + _LEAF: rf'\g<block>.{new}.\g<leaf>' for old, new in names.items()}


# official name -> name in our plugin; numbers such as 2-1 are evaluated afterwards
_MODULES = _in_blocks(
    {
        # Jongchan/attention-module
        r'cbam\.ChannelGate\.mlp\.1': 'cbam.channel_gate.fc1',
        r'cbam\.ChannelGate\.mlp\.3': 'cbam.channel_gate.fc2',
        r'cbam\.SpatialGate\.spatial\.conv': 'cbam.spatial_gate.conv',
        r'cbam\.SpatialGate\.spatial\.bn': 'cbam.spatial_gate.norm',
        # MMPretrain's SEResNet
        r'se_layer\.conv(?P<i>[12])\.conv': r'se.fc\g<i>',
        # timm
        r'se\.gather\.(?P<layer>conv|norm)(?P<i>\d+)': r'ge.\g<layer>s.\g<i>-1',
        r'se\.mlp\.fc(?P<i>[12])': r'ge.mlp.fc\g<i>',
        r'se\.conv': 'eca.conv',
        r'conv2\.paths\.(?P<i>\d+)\.bn': r'conv2.paths.\g<i>.norm',
        r'conv2\.attn\.fc_(?P<i>reduce|select)': r'conv2.\g<i>',
        r'conv2\.attn\.bn': 'conv2.norm',
        r'conv2\.conv_lambda': 'conv2.position',
        # landskape-ai/triplet-attention
        **{
            rf'triplet_attention\.{gate}\.conv\.{old}': rf'triplet_attention.{gate}.{new}'
            for gate in ('cw', 'hc', 'hw')
            for old, new in (('conv', 'conv'), ('bn', 'norm'))
        },
        # ResNets of that repository
        **{
            rf'triplet_attention\.{gate}\.spatial\.{old}': rf'triplet_attention.{ours}.{new}'
            for gate, ours in (
                ('ChannelGateH', 'cw'),
                ('ChannelGateW', 'hc'),
                ('SpatialGate', 'hw'),
            )
            for old, new in (('conv', 'conv'), ('bn', 'norm'))
        },
        # houqb/CoordAttention
        r'coord_att\.bn1': 'coord_att.norm',
    }
) | {_BLOCK + r'conv2\.pos_emb': r'\g<block>.conv2.position.weight'}

# Jongchan/attention-module, after stages
_MODULES |= {
    rf'bam(?P<stage>\d+)\.{old}{_LEAF}': rf'layer\g<stage>.bam.{new}.\g<leaf>'
    for old, new in {
        r'channel_att\.gate_c\.gate_c_fc_(?P<i>\d+)': r'channel_fcs.\g<i>',
        r'channel_att\.gate_c\.gate_c_bn_(?P<i>\d+)': r'channel_norms.\g<i>-1',
        r'channel_att\.gate_c\.gate_c_fc_final': 'channel_out',
        r'spatial_att\.gate_s\.gate_s_conv_reduce0': 'spatial_convs.0',
        r'spatial_att\.gate_s\.gate_s_bn_reduce0': 'spatial_norms.0',
        r'spatial_att\.gate_s\.gate_s_conv_di_(?P<i>\d+)': r'spatial_convs.\g<i>+1',
        r'spatial_att\.gate_s\.gate_s_bn_di_(?P<i>\d+)': r'spatial_norms.\g<i>+1',
        r'spatial_att\.gate_s\.gate_s_conv_final': 'spatial_out',
    }.items()
}

# names that our plugins share: BangguWu/ECANet, SE of timm, and parts of the modules above
_SAME = _in_blocks(
    {
        r'eca\.conv': 'eca.conv',
        r'se\.fc(?P<i>[12])': r'se.fc\g<i>',
    }
)
_PARTS = _in_blocks(
    {
        r'conv2\.(?P<i>qkv|norm_[qv]|paths\.\d+\.conv)': r'conv2.\g<i>',
        r'coord_att\.(?P<i>conv1|conv_[hw])': r'coord_att.\g<i>',
        # timm's SK networks
        r'conv(?P<i>[13])\.conv': r'conv\g<i>',
        r'conv(?P<i>[13])\.bn': r'bn\g<i>',
    }
)
_RULES = [*_TRUNK.items(), *_MODULES.items(), *_SAME.items(), *_PARTS.items()]


def _any_of(patterns: dict[str, str]) -> re.Pattern[str]:
    return re.compile('|'.join(re.sub(r'\?P<\w+>', '?:', pattern) for pattern in patterns))


_MODULE, _IDENTICAL, _ANY = _any_of(_MODULES), _any_of(_SAME), _any_of(dict(_RULES))


_DEEP_STEM = 'conv1.0.weight'  # timm's, with bn1 behind its last convolution


def _matches(keys: set[str]) -> bool:
    """Whether there are official-only names, or shared ones in a network with known keys only."""
    if any(map(_MODULE.fullmatch, keys)):
        return True
    shared = _DEEP_STEM in keys or any(map(_IDENTICAL.fullmatch, keys))
    return shared and all(map(_ANY.fullmatch, keys))


def _compute(match: re.Match[str]) -> str:
    return str(int(match[1]) + int(match[2]))


def _change(key: str, value: Tensor) -> Tensor:
    if key.endswith('.conv2.position.weight'):
        if value.ndim == 3:  # timm's table (rows, columns, K) for maps of one size
            return value.permute(2, 0, 1).unsqueeze(1)
        return value.squeeze(-1)  # weight of a convolution of three dimensions
    return value


def _convert(state: StateDict) -> StateDict:
    out = {}
    for key, value in rename(state, _RULES, NAME).items():
        key = re.sub(r'(\d+)([+-]1)(?=\.)', _compute, key)
        if _DEEP_STEM in state:
            key = re.sub(r'^bn1\.', 'stem.7.', key)
        out[key] = _change(key, value)
    return out


register(
    NAME,
    Source(
        'ResNets with SE, BAM, CBAM, ECA, GE, SK, triplet, coordinate attention or lambda layers '
        "of their official repositories, timm or MMPretrain; timm's with three convolutions first",
        _matches,
        _convert,
    ),
)
