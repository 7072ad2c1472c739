"""Whole backbones beside those of timm and MMPretrain with the same weights.

Forward and backward of images to the last map, in eval mode (norms and drop paths would differ by
chance else), at 224 x 224 and, where the peer can, at a detection size. Weights are copied through
the converters, so that outputs and gradients agree or the run ends. Peers that cannot be imported
are left out with a note.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from hybrid_mm.analysis.benchmark import Case
from hybrid_mm.convert import convert

PACKAGES = ('timm', 'mmpretrain')
SIZES = ((4, 224, 224), (1, 800, 1216))
QUICK = ((1, 64, 64),)


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: The variant.
        ours: Config of our backbone that returns the last map.
        package: Where the peer is from.
        make: Peer for an image size; it has the weights, or a state dict that converts to ours.
        run: Last map of the peer.
        any_size: Whether it takes other sizes than 224 x 224.
        source: Layout of the peer's weights.
    """

    name: str
    ours: dict
    package: str
    make: Callable[[tuple[int, int]], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    any_size: bool
    source: str


def _hornet(arch: str) -> Peer:
    def make(size: tuple[int, int]) -> nn.Module:
        from mmpretrain.models import HorNet

        return HorNet(arch, scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))

    return Peer(
        f'HorNet-{arch}',
        dict(type='hybrid_mm.HorNet', arch=arch, out_indices=(3,)),
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        True,
        'hornet',
    )


PEERS = (_hornet('tiny'), _hornet('tiny-gf'))


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    generator = torch.Generator().manual_seed(0)
    for n, *size in QUICK if quick else SIZES:
        x = torch.randn(n, 3, *size, generator=generator).to(device, dtype)
        for peer in PEERS:
            yield _case(peer, x, tuple(size))


def _case(peer: Peer, x: Tensor, size: tuple[int, int]) -> Case:
    title = f'{peer.name}, {"x".join(map(str, (len(x), *size)))}'
    ours = MODELS.build(peer.ours).eval().to(x)
    inputs = {'x': x.detach().requires_grad_()}
    nets, reason = {'ours': ours}, ''
    if not peer.any_size and size != (224, 224):
        reason = 'takes 224 x 224 only'
    else:
        try:
            theirs = peer.make(size)
        except ImportError as error:
            reason = f'not installed: {error.name}'
        else:
            theirs.eval()  # some return None here
            theirs.to(x)
            state = convert(theirs.state_dict(), peer.source)
            ours.load_strictly(
                {k: v for k, v in state.items() if not k.startswith('head.')}, peer.name
            )
            nets[peer.package] = theirs
    runs = {'ours': lambda x: ours(x)[-1]}
    if not reason:
        runs[peer.package] = lambda x: peer.run(nets[peer.package], x)
    parameters = {
        name: [p for p in net.parameters() if p.requires_grad] for name, net in nets.items()
    }
    unavailable = {peer.package: reason} if reason else {}
    return Case(title, inputs, runs, unavailable, parameters=parameters)
