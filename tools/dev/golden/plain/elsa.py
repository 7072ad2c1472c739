"""ELSA-Swin (arXiv 2112.12786, section 4.1, and the published weights' settings)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import swin
from plain.parts import offsets, window_attention


def operator(p: Weights, x: Tensor, name: str, heads: int, kernel: int, group_width: int) -> Tensor:
    """ELSA on tokens (N, H, W, C) with lambda 0 and gamma 1."""
    channels = x.shape[-1]
    width = -(-(channels // 3 * 2) // group_width) * group_width
    maps = p.conv(x.permute(0, 3, 1, 2), f'{name}.pre_proj', 2 * width + channels, 1)
    q, k, v = maps.split([width, width, channels], 1)
    y = F.gelu(p.conv(q * k, f'{name}.attn.0', width, kernel, groups=width // group_width))
    logits = p.conv(y, f'{name}.attn.2', heads * kernel**2, 1, gain=1.5)
    share = logits.unflatten(1, (heads, kernel**2)).softmax(2)
    share = share.repeat_interleave(channels // heads, 1)  # (N, C, taps, H, W)
    ghost = p.normal(f'{name}.ghost_head', 1, channels, kernel, kernel, std=0.2)
    taps = share + ghost.flatten(2)[..., None, None]
    height, width = x.shape[1:3]
    padded = F.pad(v, [kernel // 2] * 4)
    out = torch.zeros_like(v)
    for tap in range(kernel**2):
        top, left = divmod(tap, kernel)
        out = out + taps[:, :, tap] * padded[:, :, top : top + height, left : left + width]
    return p.linear(out.permute(0, 2, 3, 1), f'{name}.post_proj', channels, gain=0.4)


def windows(p: Weights, x: Tensor, name: str, heads: int, window: int, shift: int) -> Tensor:
    """Window attention of the last stage, in ELSA's layout."""
    height, width, channels = x.shape[1:]
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window)).roll((-shift, -shift), (1, 2))
    maps = p.linear(x, f'{name}.pre_proj', 3 * channels).unflatten(-1, (3, heads, -1))
    v, q, k = maps.unbind(3)
    table = p.normal(f'{name}.rb', heads, (2 * window - 1) ** 2, std=0.5)
    dy, dx = window - 1 - offsets(window)  # the table counts key minus query
    bias = table[:, (2 * window - 1) * dy + dx]
    x = window_attention(q, k, v, window, shift, (channels // heads) ** -0.5, bias)
    x = p.linear(x, f'{name}.post_proj', channels, gain=0.4)
    return x.roll((shift, shift), (1, 2))[:, :height, :width]


def forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    group_width: int = 4,
    kernel: int = 7,
    window: int = 7,
) -> list[Tensor]:
    """Dense network: the windows of the last stage are shifted even if a map fits into one."""

    def place(y: Tensor, name: str, stage: int, block: int) -> Tensor:
        if stage < len(depths) - 1:
            return operator(p, y, name, heads[stage], kernel, group_width)
        return windows(p, y, name, heads[stage], window, window // 2 * (block % 2))

    return swin.trunk(p, x, embed_dim, depths, place)


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    names = 'embed_dim', 'depths', 'num_heads', 'group_width'
    return forward(p, x, *(config[name] for name in names), window=config['window_size'])


KNOWN = {'elsa_swin': _known, 'elsa_swin_two_windows': _known}
_NET = dict(embed_dim=4, depths=[1, 2, 1, 2], heads=[1, 2, 2, 4])
_KERNEL = dict(embed_dim=4, depths=[1, 1], num_heads=[1, 2], group_width=4, elsa_kernel=5)
CASES = {
    'net_swin': dict(
        network='ELSASwin',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 33, 230),
        seed=3,
        notes='the last stage has two windows side by side',
    ),
    'net_kernel': dict(
        module='ELSASwin',
        config=_KERNEL,
        forward=lambda p, x: forward(p, x, *list(_KERNEL.values())),
        shape=(1, 3, 33, 50),
        seed=4,
    ),
}
