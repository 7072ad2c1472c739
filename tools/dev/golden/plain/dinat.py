"""DiNAT and DiNAT_s (arXiv 2209.15001): the formulas of NAT."""

from case import Weights
from torch import Tensor

from plain.nat import forward, forward_s, known


def _known_s(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    return forward_s(
        p,
        x,
        config['embed_dim'],
        config['depths'],
        config['num_heads'],
        config['dilations'],
        config['kernel_size'],
    )


KNOWN = {'backbone': known, 'backbone_k7_layerscale': known, 'backbone_s': _known_s}
_NET = dict(embed_dim=4, depths=[2, 2, 1, 1], heads=[1, 2, 2, 4])
_DILATIONS = [[1, 3], [1, 2], [1], [1]]
CASES = {
    'net': dict(
        network='DiNAT',
        config=dict(sizes=_NET, kernel_size=3, dilations=_DILATIONS),
        forward=lambda p, x: forward(p, x, **_NET, dilations=_DILATIONS, kernel=3),
        shape=(1, 3, 37, 70),
        seed=18,
    ),
    'net_s': dict(
        network='DiNATs',
        config=dict(sizes=_NET, dilations=[[1, 2], [1, 1], [1], [1]]),
        forward=lambda p, x: forward_s(p, x, **_NET, dilations=[[1, 2], [1, 1], [1], [1]]),
        shape=(1, 3, 37, 70),
        seed=19,
    ),
}
