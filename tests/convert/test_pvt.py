"""Layout of the official PVT checkpoints."""

import re

import pytest
import torch

from hybrid_mm.backbones import PVT
from hybrid_mm.convert import convert

ARCH = dict(
    depths=[1, 1, 1, 2],
    embed_dims=[8, 12, 16, 24],
    heads=[1, 2, 2, 3],
    mlp_ratios=[2, 2, 2, 2],
    reductions=[8, 4, 2, 1],
)


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        _, stage, part, *rest = key.split('.')
        number = int(stage) + 1
        rest = '.'.join(rest)
        if part == 'blocks':
            rest = rest.replace('attn.reduce', 'attn.sr').replace('attn.mix.', 'attn.')
            key = f'block{number}.{rest}'
        elif part == 'norm':
            key = f'norm.{rest}'
        elif rest == 'position':
            key = f'pos_embed{number}'
        elif rest == 'class_token':
            key = 'cls_token'
        else:
            key = f'patch_embed{number}.{rest}'
        state[key] = value
    return state


@pytest.mark.parametrize('acmix', [False, True])
@pytest.mark.parametrize('dense', [False, True])
def test_round_trip(round_trip, acmix, dense):
    def make():
        kwargs = {} if dense else dict(class_token=True, out_indices=(3,))
        return PVT(ARCH, acmix, img_size=64, **kwargs)

    _, state, _ = round_trip(make, official, 'pvt', strange='block1.0.attn.extra')
    assert any(re.fullmatch(r'block\d\.\d\.attn\.sr\.weight', key) for key in state)


def test_unknown_keys_are_named():
    state = official(PVT(ARCH, img_size=64))
    with pytest.raises(ValueError, match=r"pvt: do not know the key 'block1.0.attn.extra'"):
        convert(state | {'block1.0.attn.extra': torch.ones(1)})
