"""PeLK (arXiv 2403.07589, equations 1 to 6)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.slak import frame


def grid(kernel: int, center: int = 5) -> list[int]:
    """Widths of the groups on one axis: 1 in the centre, then doubling, the remainder outermost."""
    rest, groups, width = kernel // 2 - center // 2, [], 2
    while width <= rest:
        groups.append(width)
        rest, width = rest - width, 2 * width
    if rest:
        if 2 * rest > (groups[-1] if groups else 1):
            groups.append(rest)
        else:
            groups[-1] += rest
    return [*reversed(groups), *[1] * center, *groups]


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    dims: Sequence[int],
    kernels: Sequence[int] = (51, 49, 47, 13),
    width_factor: float = 1.3,
    small: int = 5,
) -> list[Tensor]:
    """Dense PeLK with expanded kernels."""
    channels = [int(dim * width_factor) for dim in dims]

    def mixer(y: Tensor, name: str, stage: int) -> Tensor:
        side, part = kernels[stage], int(3 / 8 * y.shape[1])
        place = p.normal(f'pos_embeds.{stage}', 1, side, side, std=0.05)
        widths = torch.tensor(grid(side))
        name, head = f'{name}.large_kernel', y[:, :part]
        shared = p.normal(f'{name}.lkb_origin.conv.weight', part, 1, *[len(widths)] * 2, std=0.1)
        kernel = shared.repeat_interleave(widths, 2).repeat_interleave(widths, 3)
        large = F.conv2d(head, kernel, padding=side // 2, groups=part)
        large = large + (kernel[:, 0] * place).sum((1, 2)).view(-1, 1, 1)
        large = p.batch_norm(large, f'{name}.lkb_origin.bn')
        little = p.conv(head, f'{name}.small_conv.conv', part, small, groups=part, bias=False)
        little = p.batch_norm(little, f'{name}.small_conv.bn')
        return torch.cat([large + little, y[:, part:]], 1)

    return frame(p, x, depths, channels, mixer)


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    return forward(p, x, config['depths'], config['dims'], config['Ks'], config['wf'])


KNOWN = {'backbone_a': _known}
_NET = dict(depths=[1, 1, 2, 1], dims=[4, 6, 8, 12])
CASES = {
    'net': dict(
        network='PeLK',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 49, 90),
        seed=5,
    )
}
