"""SAN: sizes of the variants, and sizes and statistics that the contract does not reach."""

import pytest
import torch

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import SAN

HEAD = 2048 * 1000 + 1000
# counted on the official code with 1000 classes: parameters, and 1e9 multiply-adds at 224 x 224
OFFICIAL = {
    ('san10', 'pairwise'): (10531848, 2.044),
    ('san10', 'patchwise'): (11841124, 1.791),
    ('san15', 'pairwise'): (14065436, 2.859),
    ('san15', 'patchwise'): (16181310, 2.478),
    ('san19', 'pairwise'): (17596156, 3.636),
    ('san19', 'patchwise'): (20518470, 3.130),
}


@pytest.mark.parametrize(('arch', 'attention'), OFFICIAL)
def test_parameters_and_multiply_adds(arch, attention):
    with torch.device('meta'):
        found = complexity(SAN(arch, attention), (224, 224))
    parameters, gmac = OFFICIAL[arch, attention]
    assert found[0] + HEAD == parameters
    assert (found[1] + 2048 * 1000) / 1e9 == pytest.approx(gmac, abs=0.0005)


@pytest.mark.parametrize(('arch', 'millions'), [('san10', 11.99), ('san15', 16.41),
                                                ('san19', 20.83)])  # fmt: skip
def test_parameters_with_acmix(arch, millions):
    """One set of shift kernels in every block, on the patchwise network."""
    with torch.device('meta'):
        model, host = SAN(arch, acmix=True), SAN(arch)
    extra = sum(
        81 * m.dep_conv.out_channels + 6 * 9 + 2 for m in model.modules() if hasattr(m, 'dep_conv')
    )
    parameters, plain = (sum(p.numel() for p in m.parameters()) for m in (model, host))
    assert parameters == plain + extra
    assert (parameters + HEAD) / 1e6 == pytest.approx(millions, abs=0.005)


def test_bad_arguments():
    with pytest.raises(
        ValueError, match="SAN: attention must be one of pairwise, patchwise, got 'both'"
    ):
        SAN('san10', 'both')
    arch = dict(SAN.arch_zoo['san10'].to_dict(), stem_channels=48)
    with pytest.raises(ValueError, match='stem_channels must be a multiple of 32, got 48'):
        SAN(arch)
