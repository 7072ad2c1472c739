"""EA-AA-ResNet: sizes, its chain of logits, the cap, its memory."""

import pytest
import torch
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import EAAAResNet
from hybrid_mm.benchmarks.core import memory
from hybrid_mm.layers import EvolvingAAConv2d

# trainable numbers of the published graph at 224 x 224, with 1000 classes
PUBLISHED = {'r50': 24967712, 'r101': 43440728}


@pytest.mark.parametrize('arch', PUBLISHED)
def test_parameters(arch):
    with torch.device('meta'):
        model = EAAAResNet(arch)
    assert sum(p.numel() for p in model.parameters()) + 2048 * 1000 + 1000 == PUBLISHED[arch]


def convolutions(model):
    return [[block.conv2 for block in stage.blocks] for stage in model.stages]


def test_chain_of_the_published_network():
    with torch.device('meta'):
        plain, *stages = convolutions(EAAAResNet('r50'))
    assert not any(isinstance(conv, EvolvingAAConv2d) for conv in plain)
    evolves = [[conv.evolve is not None for conv in stage] for stage in stages]
    assert evolves == [[False, True, True, True], [True] * 6, [False, True, True]]
    assert [stage[0].attn_downsample for stage in stages] == [True, False, False]
    assert [stage[0].relative.size for stage in stages] == [(14, 14), (14, 14), (7, 7)]


def test_chain_follows_strides_and_heads():
    def starts(**kwargs):
        with torch.device('meta'):
            stages = convolutions(EAAAResNet('r50', **kwargs))
        return [getattr(stage[0], 'evolve', None) is None for stage in stages]

    assert starts() == [True, True, False, True]
    assert starts(strides=(1, 2, 2, 1)) == [True, True, False, False]
    assert starts(attn_downsample=False) == [True, True, True, True]
    assert starts(heads=(8, 8, 4, 4)) == [True, True, True, True]
    assert starts(augmented=(False, False, True, True), strides=(1, 2, 2, 1))[2:] == [True, False]


TINY = dict(
    stem=8,
    bottleneck=True,
    depths=[1, 2, 2, 1],
    widths=[8, 8, 8, 16],
    out_channels=[16, 16, 16, 24],
)
SMALL = dict(arch=TINY, heads=2, upsilon=0.25, canvas_size=(64, 64))


def test_logits_travel_from_stage_to_stage(monkeypatch):
    model = EAAAResNet(**SMALL).eval()
    seen = []
    forward = EvolvingAAConv2d.forward

    def watch(self, x, previous=None):
        out, logits = forward(self, x, previous)
        seen.append((previous, logits))
        return out, logits

    monkeypatch.setattr(EvolvingAAConv2d, 'forward', watch)
    model(torch.rand(1, 3, 64, 64))
    previous, logits = zip(*seen, strict=True)
    assert [p is None for p in previous] == [True, False, False, False, True]
    assert all(previous[i] is logits[i - 1] for i in (1, 2, 3))


def test_stages_without_attention_break_the_chain():
    model = EAAAResNet(**SMALL, augmented=(False, True, False, True)).eval()
    assert len(model(torch.rand(1, 3, 64, 64))) == 4


def test_cap_changes_nothing_below_it():
    torch.manual_seed(0)
    free, capped = EAAAResNet(**SMALL, max_tokens=None), EAAAResNet(**SMALL, max_tokens=16)
    capped.load_state_dict(free.state_dict())
    free, capped = free.eval(), capped.eval()
    x = torch.rand(1, 3, 64, 64)
    assert all(map(torch.equal, free(x), capped(x)))
    x = torch.rand(1, 3, 64, 96)
    assert not torch.equal(free(x)[3], capped(x)[3])


def test_tables_follow_canvas_and_cap(tmp_path):
    source = EAAAResNet(**SMALL)
    assert source.stages[2].blocks[0].conv2.relative.size == (4, 4)
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    larger = EAAAResNet(**SMALL | dict(canvas_size=(256, 192)), max_tokens=50)
    larger.load_pretrained(str(tmp_path / 'x.pth'))
    tables, small = (m.stages[2].blocks[0].conv2.relative for m in (larger, source))
    assert tables.size == (8, 6)
    torch.testing.assert_close(tables.rel_h[0, [0, -1]], small.rel_h[0, [0, -1]])


def test_initial_values():
    torch.manual_seed(0)
    conv = EAAAResNet('r50').stages[3].blocks[1].conv2
    limit = 2 * (512 * 9) ** -0.5 / 0.8796
    assert conv.conv_out.weight.abs().max() < limit
    assert conv.conv_out.weight.detach().std() * (512 * 9) ** 0.5 == pytest.approx(1, rel=0.01)
    assert conv.attn_out.bias.abs().max() == conv.evolve.bias.abs().max() == 0


def test_basic_blocks_are_refused():
    with pytest.raises(ValueError, match='bottlenecks only'):
        EAAAResNet(dict(TINY, bottleneck=False))
    with pytest.raises(ValueError, match="has no arch 'r34'"):
        EAAAResNet('r34')


def test_a_block_keeps_one_map_of_logits():
    kept = []
    for depth in (2, 4):
        arch = dict(TINY, depths=[1, 1, depth, 1], widths=[16] * 4, out_channels=[16] * 4)
        model = EAAAResNet(arch, 0.5, 0.5, canvas_size=(64, 64), with_cp=True, max_tokens=None)
        x = torch.rand(1, 3, 384, 384)
        _, left = memory(lambda model=model, x=x: model(x), torch.device('cpu'))
        kept.append(left)
    logits = 4 * 8 * (24 * 24) ** 2
    assert 2 * logits <= kept[1] - kept[0] < 2.1 * logits


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = EvolvingAAConv2d(
            6, 10, key_channels=8, value_channels=4, heads=2, size=(4, 5), evolves=True
        )

    def forward(self, x):
        return self.layer(x, x.new_zeros(1, 2, 20, 20))


def test_multiplications():
    pixels, tokens = 20, 20**2
    products = 2 * tokens * (4 + 2 + 9 * 2)
    relative = 8 * pixels * (4 + 5)
    convolutions = pixels * (9 * 6 * 6 + 6 * (8 + 8 + 4) + 4 * 4)
    assert complexity(Layer(), (6, 4, 5))[1] == products + relative + convolutions
