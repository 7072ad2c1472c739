"""Layout of SLaK, which PeLK shares."""

import re

import pytest
import torch

from hybrid_mm.backbones import PeLK, SLaK
from hybrid_mm.convert import convert

ARCH = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 20])


def official_name(key, stripe='LoRA'):
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


CASES = {
    'slak': (lambda: SLaK(ARCH, (13, 13, 7, 7)), 'LoRA'),
    'slak-decom': (lambda: SLaK(ARCH, (13, 13, 7, 7)), 'Decom'),
    'slak-plain': (lambda: SLaK(ARCH, (13, 13, 7, 7), decomposed=False), 'LoRA'),
    'pelk': (lambda: PeLK(ARCH, (31, 13, 13, 7)), 'LoRA'),
}


@pytest.mark.parametrize('case', CASES)
def test_round_trip(round_trip, case):
    make, stripe = CASES[case]

    def official(model):
        own = model.state_dict()
        state = {official_name(key, stripe): value for key, value in own.items()}
        assert len(state) == len(own)
        return state

    round_trip(make, official, 'slak', strange='stages.0.extra')


def test_merged_kernels(drawn):
    model = drawn(SLaK(ARCH, (13, 13, 7, 7), decomposed=False, deploy=True))
    own = model.state_dict()
    part = 'mixer.large.conv', 'large_kernel.lkb_reparam'
    state = {official_name(key.replace(*part)): value for key, value in own.items()}
    assert 'stages.0.0.large_kernel.lkb_reparam.bias' in state
    out = convert(state)
    assert out.keys() == own.keys()
    assert all(torch.equal(out[key], own[key]) for key in own)


def test_published_classifier_into_a_dense_network(drawn, tmp_path):
    model = drawn(SLaK(ARCH, (13, 13, 7, 7), out_indices=(3,)))
    state = {official_name(k).replace('norm3', 'norm'): v for k, v in model.state_dict().items()}
    state |= {'head.weight': torch.ones(5, 26), 'head.bias': torch.ones(5)}
    torch.save(dict(model=state), tmp_path / 'slak.pth')
    dense = SLaK(ARCH, (13, 13, 7, 7))
    dense.load_pretrained(str(tmp_path / 'slak.pth'))
    own, expected = dense.state_dict(), model.state_dict()
    assert all(torch.equal(own[key], expected[key]) for key in expected)
