"""QnA-ViT beyond the contract."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import QnAViT
from hybrid_mm.backbones.qna_vit import PaddedWindowAttention
from hybrid_mm.convert import convert, detect


@pytest.mark.parametrize(
    'arch, classifier, backbone',
    [
        ('tiny', 15_715_560, 15_201_536),
        ('tiny-7x7', 15_753_960, 15_239_936),
        ('small', 24_971_560, 24_457_536),
        ('base', 55_670_008, 54_899_472),
    ],
)
def test_parameters(arch, classifier, backbone):
    with torch.device('meta'):
        model = QnAViT(arch, norm_outputs='none')
        whole = QnAViT(arch, norm_outputs='last', out_indices=(3,))
        head = nn.Linear(whole.stage_channels[-1], 1000)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(model) == backbone
    assert count(whole) + count(head) == classifier


@pytest.mark.parametrize('height, width', [(8, 8), (7, 9), (3, 13)])
def test_what_a_window_is_filled_up_with_is_no_key(height, width):
    attn = PaddedWindowAttention(6, 4, 2).double()
    nn.init.normal_(attn.relative_bias)
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    found = attn(x)
    q, k, v = attn.qkv(x).view(2, height, width, 3, 2, 3).permute(3, 0, 4, 1, 2, 5)
    out = torch.empty_like(x).view(2, height, width, 2, 3)
    for y in range(height):
        for z in range(width):
            rows = range(y // 4 * 4, min(y // 4 * 4 + 4, height))
            columns = range(z // 4 * 4, min(z // 4 * 4 + 4, width))
            places = [(a, b) for a in rows for b in columns]
            keys = torch.stack([k[:, :, a, b] for a, b in places], 2)
            values = torch.stack([v[:, :, a, b] for a, b in places], 2)
            bias = [attn.relative_bias[:, a - y + 3, b - z + 3] for a, b in places]
            logits = (keys @ q[:, :, y, z, :, None])[..., 0] * 3**-0.5 + torch.stack(bias, -1)
            out[:, y, z] = (logits.softmax(-1)[..., None] * values).sum(2)
    torch.testing.assert_close(found, attn.proj(out.flatten(3)))


def test_layout_is_found_and_strict():
    key = 'QnAStage_0/QnA_Block_1/FusedKQnA_0/'
    state = {
        f'params/{key}query': torch.randn(2, 8),
        f'params/{key}Wk': torch.randn(8, 8),
        f'params/{key}rpe_bias': torch.randn(9, 4),
    }
    assert detect(state) == 'qna'
    out = convert(state)
    assert out['stages.0.blocks.0.attn.relative_bias'].shape == (2, 2, 3, 3)
    bias = out['stages.0.blocks.0.attn.relative_bias']
    assert bias[1, 0, 2, 1] == state[f'params/{key}rpe_bias'][7, 2]
    # with dots as well, as a nested dict is often flattened
    again = convert({name.replace('/', '.'): value for name, value in state.items()})
    assert all(torch.equal(again[name], out[name]) for name in out)
    with pytest.raises(ValueError, match="qna: do not know the key 'Extra/kernel'"):
        convert(state | {'params/Extra/kernel': torch.ones(1)})


def test_wrong_arguments():
    with pytest.raises(ValueError, match="norm_outputs must be one of all, last, none, got 'x'"):
        QnAViT('tiny', norm_outputs='x')


def test_queries_are_normalised_in_some_stages():
    with torch.device('meta'):
        net = QnAViT('tiny', normalize_queries=(True, False, True, True))
    # the block that halves the second map opens the third stage
    assert [net.stages[i].blocks[0].attn.normalize_queries for i in (0, 1)] == [True, False]
    halving = [net.stages[i].downsample.attn.normalize_queries for i in (1, 2, 3)]
    assert halving == [True, False, True]
    with pytest.raises(ValueError, match='normalize_queries must have one entry for each of the 4'):
        QnAViT('tiny', normalize_queries=(True, False))
