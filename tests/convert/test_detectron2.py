"""Detectors of detectron2: the feature pyramid beside a converted backbone."""

import pytest
import torch

from hybrid_mm.convert import convert, detect

NETWORK = {
    f'backbone.bottom_up.{key}.weight': torch.rand(*shape)
    for key, shape in (
        ('patch_embed.proj', (4, 3, 7, 7)),
        ('blocks.0.attn.qkv', (12, 4)),
        ('blocks.0.attn.pool_q', (4, 1, 3, 3)),
    )
}


def pyramid(norm):
    """Official names of the layers of every level, the finest is the second, and ours."""
    names = {}
    for level in (2, 3, 4, 5):
        for theirs, ours in (('lateral', 'lateral_convs'), ('output', 'fpn_convs')):
            name = f'backbone.fpn_{theirs}{level}', f'neck.{ours}.{level - 2}'
            for leaf in ('weight', 'bias'):
                if norm:
                    names[f'{name[0]}.norm.{leaf}'] = f'{name[1]}.ln.{leaf}'
                names[f'{name[0]}.{leaf}'] = f'{name[1]}.conv.{leaf}'
    return names


@pytest.mark.parametrize('norm', [True, False])
def test_feature_pyramid(norm):
    names = pyramid(norm)
    values = {key: torch.rand(3) for key in names}
    # of heads that MMDetection has not
    heads = {'roi_heads.keypoint_head.x': torch.rand(2), 'sem_seg_head.x': torch.rand(2)}
    state = NETWORK | values | heads
    assert detect(state) == 'mvitv2-detectron2'
    out = convert(state)
    assert {k for k in out if not k.startswith('backbone.')} == {*names.values(), *heads}
    assert all(out[ours] is values[theirs] for theirs, ours in names.items())
    assert all(out[key] is value for key, value in heads.items())
    proj = out['backbone.stages.0.embed.proj.weight']
    assert proj is NETWORK['backbone.bottom_up.patch_embed.proj.weight']


def test_feature_pyramid_with_batch_norms():
    statistics = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    values = {f'backbone.fpn_output3.norm.{leaf}': torch.rand(3) for leaf in statistics}
    out = convert(NETWORK | values)
    assert {key for key in out if 'neck' in key} == {
        f'neck.fpn_convs.1.bn.{leaf}' for leaf in statistics
    }


def test_strangers():
    with pytest.raises(ValueError, match=r"detectron2: do not know the key 'fpn_lateral2\.x'"):
        convert(NETWORK | {'backbone.fpn_lateral2.x': torch.ones(1)})
    with pytest.raises(ValueError, match=r"mvitv2: do not know the key 'blocks\.1\.x'"):
        convert(NETWORK | {'backbone.bottom_up.blocks.1.x': torch.ones(1)})
    bare = {key.removeprefix('backbone.bottom_up.'): value for key, value in NETWORK.items()}
    assert detect(bare) == 'mvitv2'
