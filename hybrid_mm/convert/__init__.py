"""Conversion of published checkpoints to our layout, by pure functions on state dicts.

A source is one layout of an official repository or a library. It is detected by the keys of a
state dict, and its conversion is strict: an unknown key is an error that names the key.
"""

from hybrid_mm.convert import (  # noqa: F401  each registers its layouts
    acmix_resnet,
    attention_modules,
    bottleneck_net,
    cvt,
    evolving_resnet,
    gcnet,
    hornet,
    levit,
    mask2former,
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
    vit_google,
    vit_huggingface,
    vit_mmseg,
)
from hybrid_mm.convert.classifier import as_classifier
from hybrid_mm.convert.core import SOURCES, convert, detect, differences, unwrap

__all__ = ['SOURCES', 'as_classifier', 'convert', 'detect', 'differences', 'unwrap']
