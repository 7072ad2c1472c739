"""Layout of the official CvT checkpoints."""

import re

from hybrid_mm.backbones import CvT

ARCH = dict(
    depths=[1, 2],
    embed_dims=[8, 12],
    heads=[1, 2],
    mlp_ratios=[2, 2],
    patch_sizes=[7, 3],
    patch_strides=[4, 2],
    patch_paddings=[2, 1],
)


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace('stages.1.norm', 'norm')
        key = re.sub(r'^stages\.', 'stage', key).replace('.embed.class_token', '.cls_token')
        key = key.replace('.embed.', '.patch_embed.')
        key = re.sub(r'attn\.conv_(.)\.conv', r'attn.conv_proj_\1.conv', key)
        key = re.sub(r'attn\.conv_(.)\.norm', r'attn.conv_proj_\1.bn', key)
        state[re.sub(r'attn\.([qkv])\.', r'attn.proj_\1.', key)] = value
    return state


def test_round_trip(round_trip):
    def make():
        return CvT(ARCH, pooled=True, out_indices=(1,))

    _, state, _ = round_trip(make, official, 'cvt', strange='stage0.pos_embed')
    assert 'stage1.blocks.1.attn.conv_proj_v.bn.running_mean' in state
    assert {'stage1.cls_token', 'norm.weight', 'stage0.blocks.0.attn.proj_q.bias'} <= set(state)
