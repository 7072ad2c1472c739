"""DiNAT and DiNAT_s (arXiv 2209.15001): the formulas of NAT."""

from case import Weights
from torch import Tensor

from plain.nat import EPS, forward, forward_s, known, operator
from plain.parts import mlp


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


def isotropic(
    p: Weights,
    x: Tensor,
    patch: int,
    channels: int,
    depth: int,
    heads: int,
    kernel: int,
    dilation: int,
    classes: int,
) -> list[Tensor]:
    """Logits of an isotropic DiNAT, whose every second block is dilated."""
    x = p.conv(x, 'patch_embed.proj', channels, patch, patch, padding=0).permute(0, 2, 3, 1)
    x = p.layer_norm(x, 'patch_embed.norm', EPS, size=0.2)
    for i in range(depth):
        name = f'layers.{i}'
        y = p.layer_norm(x, f'{name}.norm1', EPS)
        x = x + operator(p, y, f'{name}.attn', heads, kernel, dilation if i % 2 else 1)
        y = p.layer_norm(x, f'{name}.norm2', EPS)
        x = x + mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', 4 * channels, channels)
    x = p.layer_norm(x, 'norm', EPS).mean((1, 2))
    return [p.linear(x, 'head', classes)]


_ISOTROPIC = dict(patch_size=8, embed_dim=8, depth=2, num_heads=2, kernel_size=3, dilation=2)
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
    'net_isotropic': dict(
        module='NATIsotropic',
        config=dict(_ISOTROPIC, num_classes=3, img_size=64),
        forward=lambda p, x: isotropic(p, x, *_ISOTROPIC.values(), 3),
        shape=(1, 3, 64, 64),
        seed=20,
    ),
}
