"""Layout of the official ResNets with ACmix."""

import torch

from hybrid_mm.convert.core import StateDict
from hybrid_mm.convert.resnet import register_resnet

_PARTS = {'conv1': 'q', 'conv2': 'k', 'conv3': 'v'}


def _join_projections(state: StateDict) -> StateDict:
    """Join the projections to queries, keys and values; rows are ordered (channel, q|k|v, head)."""
    out = {}
    for key, value in state.items():
        parent, _, name = key.partition('.conv2.q.')
        if not name:
            if '.conv2.k.' not in key and '.conv2.v.' not in key:
                out[key] = value
            continue
        heads = state[f'{parent}.conv2.mix.fc.weight'].shape[1] // 3
        rows = [state[f'{parent}.conv2.{part}.{name}'] for part in 'qkv']
        joined = torch.stack([r.unflatten(0, (heads, -1)) for r in rows])
        out[f'{parent}.conv2.qkv.{name}'] = joined.movedim(2, 0).flatten(0, 2)
    return out


register_resnet(
    'acmix-resnet',
    'ResNet with ACmix (LeapLabTHU/ACmix)',
    {
        rf'{old}\.{leaf}': f'{new}.{leaf}'
        for old, new in (_PARTS | {'conv_p': 'position', 'fc': 'mix.fc'}).items()
        for leaf in ('weight', 'bias')
    }
    | {r'dep_conv\.weight': 'mix.dep_conv.weight', 'rate1': 'rate1', 'rate2': 'rate2'},
    finish=_join_projections,
)
