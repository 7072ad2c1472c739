"""Layouts of Swin Transformers, plain and with other operators."""

import re

import pytest
import torch

from hybrid_mm.backbones import ELSASwin
from hybrid_mm.backbones.frames.swin import Swin
from hybrid_mm.convert import convert, detect
from hybrid_mm.layers.attention.window_attention import WindowAttention

SwinTransformer = pytest.importorskip('mmdet.models.backbones').SwinTransformer

ARCH = dict(embed_dim=8, depths=[1, 2], heads=[2, 2])
EXTRA = {
    'layers.1.blocks.1.attn_mask': torch.zeros(4, 16, 16),
    'layers.0.blocks.0.attn.relative_position_index': torch.zeros(16, 16),
}


class Plain(Swin):
    """The Swin Transformer itself."""

    def __init__(self):
        super().__init__(ARCH, window_size=4, out_indices=(0, 1))
        self.build()

    def make_attention(self, stage, block):
        return WindowAttention(self.stage_channels[stage], self.windows[stage], self.heads[stage])


def table(value):
    """(heads, rows, columns) by key minus query to (offsets, heads) by query minus key."""
    heads, side, _ = value.shape
    out = torch.empty(side**2, heads)
    for row in range(side):
        for column in range(side):
            out[row * side + column] = value[:, side - 1 - row, side - 1 - column]
    return out


def unfolded(value):
    """Columns (column, row, channel) of a merging to (channel, row, column), as nn.Unfold."""
    out, channels = torch.empty_like(value), value.shape[-1] // 4
    for column in range(2):
        for row in range(2):
            for channel in range(channels):
                ours = (column * 2 + row) * channels + channel
                out[..., channel * 4 + row * 2 + column] = value[..., ours]
    return out


def authors(model):
    """Weights under the authors' names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        key = re.sub(r'^stages\.(\d)\.norm', r'norm\1', key)
        key = key.replace('stages.0.embed', 'patch_embed')
        key = key.replace('stages.1.downsample', 'layers.0.downsample')
        if key.endswith('relative_bias') and value.ndim == 3:
            key, value = f'{key[: -len("relative_bias")]}relative_position_bias_table', table(value)
        state[key.replace('stages.', 'layers.')] = value
    return state


def openmmlab(model):
    """Weights under MMDetection's names."""
    state = {}
    for key, value in authors(model).items():
        if 'downsample' in key:
            value = unfolded(value)
        key = key.replace('layers.', 'stages.').replace('mlp.fc1', 'ffn.layers.0.0')
        key = key.replace('mlp.fc2', 'ffn.layers.1').replace('.attn.', '.attn.w_msa.')
        key = key.replace('patch_embed.proj', 'patch_embed.projection')
        state[key] = value
    return state


def elsa(model):
    """Weights under the names of ELSA's code, whose last stage has other ones than Swin."""
    state, last = {}, len(model.depths) - 1
    for key, value in model.state_dict().items():
        window = key.startswith(f'stages.{last}.blocks')
        if window and '.attn.' in key:
            if key.endswith('relative_bias'):
                key, value = key.replace('relative_bias', 'rb'), value.flatten(1)
            elif '.qkv.' in key:
                q, k, v = value.chunk(3)
                key, value = key.replace('qkv', 'pre_proj'), torch.cat([v, q, k])
            else:
                key = key.replace('attn.proj', 'attn.post_proj')
        else:
            key = key.replace('attn.conv', 'attn.attn.0')
            key = key.replace('attn.to_weights', 'attn.attn.2')
            value = value.unsqueeze(1) if key.endswith('ghost_head') else value
        key = re.sub(r'^stages\.(\d)\.norm', r'norm\1', key)
        key = key.replace('stages.0.embed', 'patch_embed')
        key = key.replace('stages.1.downsample', 'layers.0.downsample')
        state[key.replace('stages.', 'layers.')] = value
    return state


@pytest.mark.parametrize(('official', 'source'), [(authors, 'swin'), (openmmlab, 'swin-openmmlab')])
def test_round_trip(round_trip, official, source):
    extra = EXTRA if source == 'swin' else None
    strange = 'layers.0.extra' if source == 'swin' else 'stages.0.extra'
    round_trip(Plain, official, source, strange=strange, extra=extra)


def test_timms_reductions_begin_their_stage(drawn):
    own = drawn(Plain()).state_dict()
    state = {
        key.replace('layers.0.downsample', 'layers.1.downsample'): value
        for key, value in authors(drawn(Plain())).items()
    }
    assert 'layers.1.downsample.reduction.weight' in state
    assert convert(state).keys() == own.keys()


@pytest.mark.parametrize('lam', [0, 1])
def test_round_trip_of_elsa(round_trip, lam):
    def make():
        return ELSASwin(dict(ARCH, group_width=4), lam=lam, out_indices=(0, 1))

    extra = {'layers.1.blocks.1.attn.relative_id': torch.zeros(16)}
    _, state, _ = round_trip(make, elsa, 'elsa-swin', strange='layers.0.extra', extra=extra)
    assert state['layers.0.blocks.0.attn.ghost_head'].shape == (1 + lam, 1, 8, 7, 7)
    assert 'layers.1.blocks.0.attn.rb' in state


def test_classifiers_head_and_last_norm(drawn):
    state = authors(drawn(Plain()))
    state = {
        key.replace('norm1.', 'norm.') if key.startswith('norm1') else key: value
        for key, value in state.items()
        if not key.startswith('norm0')
    }
    head = {'head.weight': torch.rand(5, 16), 'head.bias': torch.rand(5)}
    out = convert(state | head)
    assert out['stages.1.norm.weight'] is state['norm.weight']
    assert out['head.weight'] is head['head.weight']
    assert (
        convert({f'head.fc{k[4:]}' if k in head else k: v for k, v in (state | head).items()})[
            'head.bias'
        ]
        is head['head.bias']
    )


def test_a_swin_with_other_keys_is_not_claimed(drawn):
    state = authors(drawn(Plain()))
    assert detect(state | {'layers.0.blocks.0.attn.gain': torch.ones(1)}) is None
    assert detect(state | EXTRA) == 'swin'


def test_detectors_of_detectron2_become_mmdetections(drawn):
    """The network has the authors' names there; MMDetection's computes the same with it."""
    model = drawn(Plain()).eval()
    # query minus key, rows before columns
    y, x = torch.meshgrid(torch.arange(4), torch.arange(4), indexing='ij')
    y, x = y.flatten(), x.flatten()
    index = (y[:, None] - y + 3) * 7 + x[:, None] - x + 3
    state = authors(model)
    for key in [key for key in state if key.endswith('qkv.weight')]:
        state[key.replace('qkv.weight', 'relative_position_index')] = index
    whole = {f'backbone.bottom_up.{key}': value for key, value in state.items()}
    assert detect(whole) == 'swin-detectron2'
    out = convert(whole)
    theirs = SwinTransformer(
        embed_dims=8, depths=[1, 2], num_heads=[2, 2], window_size=4, out_indices=(0, 1)
    )
    theirs.load_state_dict({k.removeprefix('backbone.'): v for k, v in out.items()}, strict=True)
    theirs.eval()  # gives None
    images = torch.rand(2, 3, 64, 48)
    for found, expected in zip(theirs(images), model(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"Swin: do not know the key 'layers\.0\.x'"):
        convert(whole | {'backbone.bottom_up.layers.0.x': torch.ones(1)})
