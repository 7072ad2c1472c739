"""Swin with ACmix: sizes of the variants, and what becomes of plain Swin checkpoints."""

import pytest
import torch

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import ACmixSwin

SwinTransformer = pytest.importorskip('mmdet.models.backbones.swin').SwinTransformer

HEAD = 768 * 1000 + 1000
TINY = dict(embed_dim=8, depths=[1, 2, 2], heads=[2, 2, 4])
# counted on the official code: parameters with 1000 classes and of the maps of all stages, and 1e9
# multiply-adds at 224 x 224
OFFICIAL = {'tiny': (28_649_908, 27_882_252, 4.649), 'small': (50_345_080, 49_577_424, 8.999)}


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        classifier, dense = ACmixSwin(arch, out_indices=(3,)), ACmixSwin(arch)
        found = complexity(classifier, (224, 224))
    parameters, of_maps, gmac = OFFICIAL[arch]
    assert found[0] + HEAD == parameters
    assert sum(p.numel() for p in dense.parameters()) == of_maps
    assert (found[1] + 768 * 1000) / 1e9 == pytest.approx(gmac, rel=0.02)


def openmmlab_swin():
    torch.manual_seed(0)
    net = SwinTransformer(
        embed_dims=8,
        depths=(1, 2, 2),
        num_heads=(2, 2, 4),
        window_size=4,
        strides=(4, 2, 2),
        out_indices=(0, 1, 2),
        drop_path_rate=0.0,
    )
    net.eval()  # which returns None there
    return net


@pytest.mark.parametrize('size', [(96, 128), (110, 83)])
def test_starts_as_the_swin_of_a_plain_checkpoint(size, tmp_path):
    swin = openmmlab_swin()
    for parameter in swin.parameters():  # zeros and ones would hide a mistake
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save({'state_dict': swin.state_dict()}, tmp_path / 'swin.pth')
    model = ACmixSwin(TINY, window_size=4, out_indices=(0, 1, 2)).eval()
    model.load_pretrained(str(tmp_path / 'swin.pth'))
    rates = {k: v.item() for k, v in model.named_parameters() if '.rate' in k}
    assert {k[-1]: v for k, v in rates.items()} == {'1': 1.0, '2': 0.0}
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        for ours, theirs in zip(model(x), swin(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_classifier_into_a_detector_and_another_window(tmp_path):
    classifier = ACmixSwin(TINY, window_size=4, out_indices=(2,))
    head = {'head.fc.weight': torch.ones(5, 32), 'head.fc.bias': torch.ones(5)}
    torch.save(classifier.state_dict() | head, tmp_path / 'cls.pth')
    model = ACmixSwin(TINY, window_size=7, out_indices=(0, 1, 2))
    model.load_pretrained(str(tmp_path / 'cls.pth'))
    assert torch.equal(model.stages[2].norm.weight, classifier.stages[2].norm.weight)
    assert torch.equal(model.stages[0].norm.weight, torch.ones(8))
    assert model.stages[0].blocks[0].attn.relative_bias.shape == (2, 13, 13)
    partial = {k: v for k, v in classifier.state_dict().items() if not k.endswith('rate1')}
    torch.save(partial, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'does not fit this ACmixSwin.*missing.*rate1'):
        model.load_pretrained(str(tmp_path / 'part.pth'))


def test_windows_that_cover_the_map_are_not_shifted():
    torch.manual_seed(0)
    block = ACmixSwin(TINY, window_size=4, out_indices=(0, 1, 2)).stages[1].blocks[1].eval()
    assert block.shift == 2
    x = torch.randn(1, 4, 8, 16)
    shifted = block(x)
    block.shift = 0
    assert torch.equal(block(x), shifted)
    x = torch.randn(1, 5, 8, 16)
    plain = block(x)
    block.shift = 2
    assert not torch.allclose(block(x), plain)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch=dict(TINY, heads=[3, 2, 4])), 'heads must divide the 8 channels, got 3'),
        (
            dict(window_size=(7, 7)),
            'ACmixSwin: window_size must have one entry for each of the 4 stages',
        ),
        (dict(window_size=0), 'window_size must be positive, got 0'),
        (dict(arch='huge'), "ACmixSwin has no arch 'huge'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ACmixSwin(**kwargs)
