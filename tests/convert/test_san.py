"""Layout of the official SAN checkpoints."""

import pytest
import torch

from hybrid_mm.backbones import SAN
from hybrid_mm.convert import convert, unwrap

ARCH = dict(
    stem_channels=32,
    stem_depth=2,
    stem_kernel_size=3,
    depths=[1, 2],
    channels=[32, 64],
    kernel_sizes=[3, 3],
)
INNER = {
    'attn.query_conv': 'sam.conv1', 'attn.key_conv': 'sam.conv2', 'attn.value_conv': 'sam.conv3',
    'attn.position': 'sam.conv_p', 'attn.norm1': 'sam.conv_w.0', 'attn.conv1': 'sam.conv_w.2',
    'attn.norm2': 'sam.conv_w.3', 'attn.conv2': 'sam.conv_w.5', 'attn.mix.fc': 'sam.fc',
    'attn.mix.dep_conv': 'sam.dep_conv', 'attn': 'sam', 'norm1': 'bn1', 'norm2': 'bn2',
    'conv': 'conv',
}  # fmt: skip


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        name, _, leaf = key.rpartition('.')
        number, rest = 0, name.replace('stem.stage', 'stages.-1')
        if name in ('stem.conv', 'stem.norm'):
            new = {'stem.conv': 'conv_in', 'stem.norm': 'bn_in'}[name]
        else:
            _, number, part, *rest = rest.split('.')
            number = int(number) + 1
            if part == 'blocks':
                new = f'layer{number}.{rest[0]}.{INNER[".".join(rest[1:])]}'
            else:
                new = {'downsample': 'conv', 'norm': 'bn'}[part] + str(number)
        state[f'{new}.{leaf}'] = value
    return state


@pytest.mark.parametrize('kwargs', [dict(attention='pairwise'), dict(), dict(acmix=True)])
def test_round_trip(round_trip, kwargs):
    def make():
        return SAN(ARCH, out_indices=(0, 1), **kwargs)

    round_trip(make, official, 'san', strange='layer1.0.sam.extra')


def test_file_of_the_official_code(tmp_path):
    model = SAN(ARCH, 'pairwise', out_indices=(0, 1))
    state = official(model) | {'fc.weight': torch.ones(3, 64), 'fc.bias': torch.ones(3)}
    saved = {'epoch': 100, 'state_dict': {f'module.{k}': v for k, v in state.items()}}
    assert convert(unwrap(saved))['head.weight'].shape == (3, 64)
    torch.save(saved, tmp_path / 'san.pth')
    other = SAN(ARCH, 'pairwise', out_indices=(0, 1))
    other.load_pretrained(str(tmp_path / 'san.pth'))
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_unknown_keys_are_named():
    state = official(SAN(ARCH, out_indices=(0, 1)))
    with pytest.raises(ValueError, match=r"san: do not know the key 'layer1.0.sam.extra'"):
        convert(state | {'layer1.0.sam.extra': torch.ones(1)})
