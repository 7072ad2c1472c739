"""Official checkpoint layouts to ours: pure functions on state dicts.

A source is one official (or library) layout. It is found by its keys, and it is strict: a key that
it does not know is an error that names the key.
"""

from hybrid_mm.convert import (
    acmix_networks,
    attention_modules,
    bottleneck_net,
    cvt,
    evolving_resnet,
    gcnet,
    hornet,
    levit,
    maxxvit,
    mvitv2,
    nat,
    pvt,
    qna,
    quadratic_attention_nets,
    replknet,
    resnet,
    san,
    slak,
    swin,
    van,
    vit,
)
from hybrid_mm.convert.core import SOURCES, convert, detect, differences, unwrap

__all__ = [
    'SOURCES',
    'acmix_networks',
    'attention_modules',
    'bottleneck_net',
    'convert',
    'cvt',
    'detect',
    'differences',
    'evolving_resnet',
    'gcnet',
    'hornet',
    'levit',
    'maxxvit',
    'mvitv2',
    'nat',
    'pvt',
    'qna',
    'quadratic_attention_nets',
    'replknet',
    'resnet',
    'san',
    'slak',
    'swin',
    'unwrap',
    'van',
    'vit',
]
