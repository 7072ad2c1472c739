"""Layouts of SLaK, PeLK and RepLKNet."""

import re

import pytest
import torch

from hybrid_mm.backbones import PeLK, RepLKNet, SLaK
from hybrid_mm.convert import convert

ARCH = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 20])
REPLK = dict(
    kernel_sizes=[13, 13, 7, 7],
    depths=[1, 2, 1, 1],
    channels=[8, 12, 16, 20],
    small_kernel=5,
    dw_ratio=1.0,
)


def drawn(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def slak_names(key, stripe='LoRA'):
    """The official name of a tensor, written out independently."""
    key = key.replace('stages.0.embed.conv', 'downsample_layers.0.0')
    key = key.replace('stages.0.embed.norm', 'downsample_layers.0.1')
    key = re.sub(r'stages\.(\d)\.downsample\.norm', r'downsample_layers.\1.0', key)
    key = re.sub(r'stages\.(\d)\.downsample\.conv', r'downsample_layers.\1.1', key)
    key = re.sub(r'stages\.(\d)\.norm', r'norm\1', key)
    key = re.sub(r'stages\.(\d)\.pos_embed', r'pos_embeds.\1', key)
    key = key.replace('.blocks.', '.').replace('mlp.fc', 'pwconv')
    if 'mixer' in key:
        key = key.replace('.norm.', '.bn.')
    for ours, theirs in (
        ('tall', f'{stripe}1'),
        ('wide', f'{stripe}2'),
        ('large', 'lkb_origin'),
        ('small', 'small_conv'),
    ):
        key = key.replace(f'mixer.{ours}', f'large_kernel.{theirs}')
    return key


def replknet_names(key):
    key = re.sub(r'stages\.(\d)\.downsample', lambda m: f'transitions.{int(m[1]) - 1}', key)
    block = re.match(r'stages\.\d\.blocks\.(\d)\.', key)
    if block:
        even = int(block[1]) % 2 == 0
        key = re.sub(r'(blocks\.\d)\.norm', r'\1.prelkb_bn' if even else r'\1.preffn_bn', key)
        for ours, theirs in (
            ('proj_in', 'pw1'), ('proj_out', 'pw2'), ('fc1', 'pw1'), ('fc2', 'pw2'),
            ('mixer.large', 'large_kernel.lkb_origin'), ('mixer.small', 'large_kernel.small_conv'),
        ):  # fmt: skip
            key = key.replace(ours, theirs)
    pairs = r'(stem\.\d|transitions\.\d\.\d|pw[12]|lkb_origin|small_conv)\.norm'
    return re.sub(pairs, r'\1.bn', key)


CASES = {
    'slak': (lambda: SLaK(ARCH, (13, 13, 7, 7)), slak_names, 'slak'),
    'slak-decom': (
        lambda: SLaK(ARCH, (13, 13, 7, 7)),
        lambda key: slak_names(key, 'Decom'),
        'slak',
    ),
    'slak-plain': (lambda: SLaK(ARCH, (13, 13, 7, 7), decomposed=False), slak_names, 'slak'),
    'pelk': (lambda: PeLK(ARCH, (31, 13, 13, 7)), slak_names, 'slak'),
    'replknet': (lambda: RepLKNet(REPLK), replknet_names, 'replknet'),
}


def test_merged_kernels_of_slak():
    model = drawn(SLaK(ARCH, (13, 13, 7, 7), decomposed=False, deploy=True))
    own = model.state_dict()
    part = 'mixer.large.conv', 'large_kernel.lkb_reparam'
    state = {slak_names(key.replace(*part)): value for key, value in own.items()}
    assert 'stages.0.0.large_kernel.lkb_reparam.bias' in state
    out = convert(state)
    assert out.keys() == own.keys()
    assert all(torch.equal(out[key], own[key]) for key in own)


@pytest.mark.parametrize('case', CASES)
def test_round_trip(round_trip, case):
    make, names, source = CASES[case]

    def official(model):
        state = {names(key): value for key, value in model.state_dict().items()}
        assert len(state) == len(model.state_dict())
        return state

    round_trip(make, official, source, strange='stages.0.extra')


def test_published_classifier_into_a_dense_network(tmp_path):
    model = drawn(SLaK(ARCH, (13, 13, 7, 7), out_indices=(3,)))
    state = {slak_names(k).replace('norm3', 'norm'): v for k, v in model.state_dict().items()}
    state |= {'head.weight': torch.ones(5, 26), 'head.bias': torch.ones(5)}
    torch.save(dict(model=state), tmp_path / 'slak.pth')
    dense = SLaK(ARCH, (13, 13, 7, 7))
    dense.load_pretrained(str(tmp_path / 'slak.pth'))
    own, expected = dense.state_dict(), model.state_dict()
    assert all(torch.equal(own[key], expected[key]) for key in expected)
