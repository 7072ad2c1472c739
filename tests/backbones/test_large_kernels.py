"""SLaK, PeLK and RepLKNet beyond the contract."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import PeLK, RepLKNet, SLaK
from hybrid_mm.backbones.pelk import PartialPeripheralConv2d
from hybrid_mm.backbones.slak import slak_kernels

from .conftest import used

TINY = dict(depths=[1, 1, 2, 1], dims=[8, 12, 16, 20])
WIDE = dict(kernel_sizes=(101, 69, 67, 13), center_size=7)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def on_meta(kind, *args, classes=0, **kwargs):
    with torch.device('meta'):
        model = kind(*args, **kwargs)
        head = nn.Linear(model.stage_channels[-1], classes) if classes else nn.Identity()
    return parameters(model) + parameters(head)


@pytest.mark.parametrize(
    'arch, kwargs, classifier, dense',
    [
        ('tiny', {}, 47_927_974, 46_930_718),
        ('small', {}, 84_522_442, 83_525_186),
        ('base', {}, 149_137_818, 147_808_144),
        ('tiny', WIDE, 48_066_646, 47_069_390),
        ('base', WIDE, 149_569_698, 148_240_024),
        ('tiny', dict(width_factor=1), 28_681_108, None),
        ('small', dict(width_factor=1), 50_483_284, None),
        ('base', dict(width_factor=1), 88_935_132, None),
        ('tiny', dict(width_factor=1, **WIDE), 28_790_980, None),
        ('base', dict(width_factor=1, **WIDE), 89_271_084, None),
    ],
)
def test_parameters_of_pelk(arch, kwargs, classifier, dense):
    assert on_meta(PeLK, arch, out_indices=(3,), classes=1000, **kwargs) == classifier
    if dense:
        assert on_meta(PeLK, arch, **kwargs) == dense


@pytest.mark.parametrize(
    'arch, kwargs, classifier, dense',
    [
        ('tiny', {}, 50_703_838, 49_706_582),
        ('small', {}, 91_131_820, 90_134_564),
        ('base', {}, 157_950_792, 156_621_118),
        ('tiny', dict(kernel_sizes=(31, 29, 27, 13)), 49_581_838, None),
        ('tiny', dict(kernel_sizes=(61, 59, 57, 13)), 51_264_838, None),
        ('tiny', dict(width_factor=1), 30_816_232, None),
        ('tiny', dict(width_factor=1, decomposed=False), 38_605_768, None),
    ],
)
def test_parameters_of_slak(arch, kwargs, classifier, dense):
    assert on_meta(SLaK, arch, out_indices=(3,), classes=1000, **kwargs) == classifier
    if dense:
        assert on_meta(SLaK, arch, **kwargs) == dense


@pytest.mark.parametrize(
    'arch, trained, deployed, dense, norms',
    [
        ('31b', 79_864_168, 79_527_272, 78_837_120, 'none'),
        ('31l', 172_671_016, 172_165_672, 171_130_944, 'none'),
        ('xl', 335_435_752, 335_399_656, 333_390_336, 'all'),
    ],
)
def test_parameters_of_replknet(arch, trained, deployed, dense, norms):
    classifier = dict(norm_outputs='last', out_indices=(3,), classes=1000)
    assert on_meta(RepLKNet, arch, **classifier) == trained
    assert on_meta(RepLKNet, arch, deploy=True, **classifier) == deployed
    assert on_meta(RepLKNet, arch, norm_outputs=norms) == dense


REPLK = dict(
    kernel_sizes=[31, 13, 7, 5],
    depths=[1, 1, 2, 1],
    channels=[8, 12, 16, 20],
    small_kernel=5,
    dw_ratio=1.5,
)


def test_replknet_13_is_31b_with_smaller_kernels():
    depths, channels = (2, 2, 18), (128, 256, 512)
    taps = (31**2, 29**2, 27**2)
    saved = sum(d * c * (t - 13**2) for d, c, t in zip(depths, channels, taps, strict=True))
    assert on_meta(RepLKNet, '13') == on_meta(RepLKNet, '31b') - saved


def test_classifier_weights_of_replknet_load_into_a_dense_network(tmp_path):
    classifier = RepLKNet(REPLK, norm_outputs='last', out_indices=(3,))
    torch.save(classifier.state_dict(), tmp_path / 'weights.pth')
    for norms in ('none', 'all'):
        model = RepLKNet(REPLK, norm_outputs=norms)
        model.load_pretrained(str(tmp_path / 'weights.pth'))
        name = 'stages.2.blocks.2.mixer.small.conv.weight'
        assert torch.equal(model.state_dict()[name], classifier.state_dict()[name])


def test_weights_of_mmpretrain_give_its_maps():
    Theirs = pytest.importorskip('mmpretrain.models.backbones').RepLKNet

    from hybrid_mm.convert import convert

    arch = dict(
        large_kernel_sizes=[31, 13, 7, 5],
        layers=[1, 1, 2, 1],
        channels=[8, 12, 16, 20],
        small_kernel=5,
        dw_ratio=1,
    )
    theirs = used(Theirs(arch, out_indices=(0, 1, 2, 3)))
    ours = RepLKNet(dict(REPLK, dw_ratio=1), norm_outputs='all').double().eval()
    ours.load_state_dict(convert(theirs.state_dict(), 'replknet'))
    x = torch.rand(2, 3, 61, 85, dtype=torch.float64)
    for a, b in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_stripes_need_a_width():
    assert slak_kernels(4, 13, None, decomposed=False).names == ['large']
    with pytest.raises(ValueError, match='leaves the stripes without a width'):
        slak_kernels(4, 13, None)


def test_width_of_the_feed_forward_networks():
    model = RepLKNet(REPLK, ffn_ratio=2.5)
    widths = [len(stage.blocks[1].fc1.conv.weight) for stage in model.stages]
    assert widths == [20, 30, 40, 50]


def test_no_small_kernel_as_large_as_the_large_one():
    assert 'small' not in slak_kernels(4, 7, 7).names
    assert slak_kernels(4, 7, 100 + 1).names == ['tall', 'wide']


def test_channels_beyond_the_partial_ratio_pass():
    mixer = PartialPeripheralConv2d(8, 3, 13, 5, dict(type='BN'), pos_embed='none')
    x = torch.rand(2, 8, 9, 9)
    assert torch.equal(mixer(x)[:, 3:], x[:, 3:])


def test_embedding_gets_no_gradient_in_front_of_a_batch_norm():
    for mode, gets in (('bias', False), ('valid', True)):
        model = PeLK(TINY, layer_scale=1.0, pos_embed=mode).double().train()
        outs = model(torch.rand(2, 3, 64, 64, dtype=torch.float64))
        sum((out * torch.randn_like(out)).sum() for out in outs).backward()
        largest = [stage.pos_embed.grad.abs().max() for stage in model.stages]
        assert min(largest) > 1e-4 if gets else max(largest) < 1e-12


def test_wrong_arguments():
    with pytest.raises(
        ValueError, match='kernel_sizes must have one entry for each of the 4 stages'
    ):
        SLaK('tiny', (7, 7))
    with pytest.raises(ValueError, match='grids must have one entry for each of the 4 stages'):
        PeLK('tiny', grids=[[1]])
    with pytest.raises(ValueError, match=r'partial_ratio must lie in \(0, 1\], got 0'):
        PeLK('tiny', partial_ratio=0)
    for grid in ([8, 2, 1, 1, 1, 2], [4, 2, 1, 2, 4], []):
        with pytest.raises(ValueError, match=r'PeLK: grids.1. must be symmetric and add up to 15'):
            PeLK(TINY, (51, 15, 47, 13), grids=[None, grid, None, None])
    with pytest.raises(ValueError, match='PeLK: kernel_sizes must be odd'):
        PeLK('tiny', (50, 49, 47, 13))
    with pytest.raises(ValueError, match="norm_outputs must be one of none, all, last, got 'bn'"):
        RepLKNet('31b', norm_outputs='bn')
    with pytest.raises(ValueError, match=r'small_kernel=5 must not be larger .* kernel of 3'):
        RepLKNet(dict(REPLK, kernel_sizes=[3, 3, 3, 3]))
    with pytest.raises(ValueError, match='SLaK: kernel_sizes must be odd'):
        SLaK('tiny', (50, 49, 47, 13))
