"""What all backbones take from their base: norms, numbers, weights of files, memory format."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import NAT, VAN, SASAResNet
from hybrid_mm.backbones.frames.blocks import build_norm

ARCH = dict(embed_dims=[8, 12], depths=[1, 2], mlp_ratios=[2, 2])
TINY = dict(arch=ARCH, out_indices=(0, 1))


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_norms_by_their_config():
    for requires_grad in (True, False):
        norm = build_norm(dict(type='SyncBN', requires_grad=requires_grad, eps=0.5), 6)
        assert isinstance(norm, nn.SyncBatchNorm)
        assert (norm.num_features, norm.eps, norm.momentum) == (6, 0.5, 0.1)
        assert {p.requires_grad for p in norm.parameters()} == {requires_grad}
    cfg = dict(type='BN', momentum=0.25)
    model = VAN(**TINY, norm_cfg=cfg)
    assert cfg == dict(type='BN', momentum=0.25)  # other parts may share it
    assert all(m.momentum == 0.25 and m.weight.requires_grad for m in norms(model))
    frozen = norms(VAN(**TINY, norm_cfg=dict(type='BN', requires_grad=False)))
    assert len(frozen) == 2 + 2 * 3
    assert not any(p.requires_grad for m in frozen for p in m.parameters())
    for kind in ('LN', None):
        with pytest.raises(ValueError, match=rf"one of \['BN', 'SyncBN'\], got {kind!r}"):
            build_norm(dict(type=kind), 6)


@pytest.mark.parametrize('kind', ['BN', 'SyncBN'])
def test_norms_in_eval_mode(kind):
    model = VAN(**TINY, norm_cfg=dict(type=kind), norm_eval=True)
    assert len(norms(model.train())) == 8
    assert not any(m.training for m in norms(model))
    assert all(m.training for m in model.modules() if isinstance(m, nn.Conv2d))
    assert all(m.training for m in norms(VAN(**TINY, norm_cfg=dict(type=kind)).eval().train()))
    # only what is frozen
    model = VAN(**TINY, norm_cfg=dict(type=kind), frozen_stages=1).train()
    assert [m.training for m in norms(model)] == [False] * 3 + [True] * 5


def test_prefixes_of_a_file(tmp_path):
    """Of a whole network its backbone, or another part by its name."""
    first, second = VAN(**TINY).state_dict(), VAN(**TINY).state_dict()
    whole = {f'backbone.{k}': v for k, v in first.items()}
    whole |= {f'teacher.{k}': v for k, v in second.items()} | {'head.fc.weight': torch.ones(1)}
    torch.save(dict(state_dict=whole), tmp_path / 'x.pth')
    key = 'stages.1.blocks.1.mlp.fc1.weight'
    for prefix, state in (
        (None, first),
        ('backbone', first),
        ('teacher', second),
        ('teacher.', second),
    ):
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
        model = VAN(**TINY, init_cfg=init if prefix is None else dict(init, prefix=prefix))
        model.init_weights()
        assert torch.equal(model.state_dict()[key], state[key]), prefix
    # a classifier of ours: its head is left out, nothing else is
    torch.save(
        {**first, 'head.weight': torch.ones(1), 'head.bias': torch.ones(1)}, tmp_path / 'y.pth'
    )
    model = VAN(**TINY)
    model.load_pretrained(str(tmp_path / 'y.pth'))
    assert torch.equal(model.state_dict()[key], first[key])
    torch.save({**first, 'extra.weight': torch.ones(1)}, tmp_path / 'z.pth')
    with pytest.raises(ValueError, match=r'z\.pth does not fit .*VAN.*1 unexpected: extra\.weight'):
        model.load_pretrained(str(tmp_path / 'z.pth'))


def test_counters_of_norms_may_be_missing():
    source, target = VAN(**TINY), VAN(**TINY)
    state = {k: v for k, v in source.state_dict().items() if not k.endswith('num_batches_tracked')}
    target.load_strictly(state, 'a test')
    assert all(torch.equal(target.state_dict()[key], state[key]) for key in state)
    del state['stages.0.norm.weight']
    with pytest.raises(ValueError, match=r'1 missing: stages\.0\.norm\.weight'):
        target.load_strictly(state, 'a test')


@pytest.mark.parametrize('make', [
    lambda: VAN(**TINY),
    lambda: NAT(dict(embed_dim=8, depths=[1, 1], heads=[1, 2], mlp_ratio=2.0, layer_scale=None),
                kernel_size=3, out_indices=(0, 1)),
    lambda: SASAResNet(dict(stem=8, bottleneck=True, depths=[1, 1], widths=[8, 8],
                            out_channels=[8, 16]), heads=2, strides=(1, 2), dilations=(1, 1),
                       out_indices=(0, 1)),
])  # fmt: skip
def test_maps_of_channels_last_images_are_contiguous(make):
    image = torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    assert all(out.is_contiguous() for out in make().eval()(image))


def test_statistics_are_updated_once_under_checkpointing():
    image = torch.rand(2, 3, 64, 64)
    plain, saving = VAN(**TINY), VAN(**TINY, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        sum(out.square().mean() for out in model.train()(image)).backward()
        assert {m.num_batches_tracked.item() for m in norms(model)} == {1}
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
