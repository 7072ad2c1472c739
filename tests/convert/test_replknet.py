"""Layout of RepLKNet."""

import re

from hybrid_mm.backbones import RepLKNet

ARCH = dict(
    kernel_sizes=[13, 13, 7, 7],
    depths=[1, 2, 1, 1],
    channels=[8, 12, 16, 20],
    small_kernel=5,
    dw_ratio=1.0,
)


def official_name(key):
    """The official name of a tensor, written out independently."""
    key = re.sub(r'stages\.(\d)\.downsample', lambda m: f'transitions.{int(m[1]) - 1}', key)
    block = re.match(r'stages\.\d\.blocks\.(\d)\.', key)
    if block:
        even = int(block[1]) % 2 == 0
        key = re.sub(r'(blocks\.\d)\.norm', r'\1.prelkb_bn' if even else r'\1.preffn_bn', key)
        for ours, theirs in (
            ('proj_in', 'pw1'),
            ('proj_out', 'pw2'),
            ('fc1', 'pw1'),
            ('fc2', 'pw2'),
            ('mixer.large', 'large_kernel.lkb_origin'),
            ('mixer.small', 'large_kernel.small_conv'),
        ):
            key = key.replace(ours, theirs)
    pairs = r'(stem\.\d|transitions\.\d\.\d|pw[12]|lkb_origin|small_conv)\.norm'
    return re.sub(pairs, r'\1.bn', key)


def official(model):
    return {official_name(key): value for key, value in model.state_dict().items()}


def test_round_trip(round_trip):
    def make():
        return RepLKNet(ARCH, norm_outputs='all')

    round_trip(make, official, 'replknet', strange='stages.0.extra')


def test_merged_kernels(round_trip):
    def merged(model):
        return {
            official_name(key.replace('mixer.large.conv', 'large_kernel.lkb_reparam')): value
            for key, value in model.state_dict().items()
        }

    _, state, _ = round_trip(
        lambda: RepLKNet(ARCH, deploy=True), merged, 'replknet', strange='stages.0.extra'
    )
    assert 'stages.0.blocks.0.large_kernel.lkb_reparam.bias' in state
