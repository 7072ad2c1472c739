"""Whole backbones beside those of MMPretrain and timm with the same weights.

Forward and backward of images to the last map, in eval mode (norms and drop paths would differ by
chance else), at 224 x 224 and at a detection size. Weights are copied through
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

PACKAGES = ('mmpretrain', 'timm')
SIZES = ((4, 224, 224), (1, 800, 1216))
QUICK = ((1, 64, 64),)


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: The variant.
        ours: Config of our backbone that returns the last map, for a size of images.
        package: Where the peer is from.
        make: Makes the peer for a size of images; its state dict converts to ours.
        run: Last map of the peer.
        source: Layout of the peer's weights.
    """

    name: str
    ours: Callable[[tuple[int, int]], dict]
    package: str
    make: Callable[[tuple[int, int]], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    source: str


def _timm(kind: str, arch: str, name: str) -> Peer:
    """MaxViT or CoAtNet; timm makes windows and tables for the size of the images."""

    def make(size: tuple[int, int]) -> nn.Module:
        import timm

        net = timm.create_model(name, img_size=size)
        net.norm = net.head = nn.Identity()
        return net

    def ours(size: tuple[int, int]) -> dict:
        own = dict(img_size=size)
        if kind == 'MaxViT':
            own = dict(window_size=tuple(side // 32 for side in size))
        return dict(type=f'hybrid_mm.{kind}', arch=arch, out_indices=(3,), **own)

    title = f'{kind}-{arch}'
    return Peer(title, ours, 'timm', make, lambda net, x: net.stages(net.stem(x)), kind.lower())


def _hornet(arch: str) -> Peer:
    def make(size: tuple[int, int]) -> nn.Module:
        from mmpretrain.models import HorNet

        return HorNet(arch, scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))

    return Peer(
        f'HorNet-{arch}',
        lambda size: dict(type='hybrid_mm.HorNet', arch=arch, out_indices=(3,)),
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        'hornet',
    )


PEERS = (
    _hornet('tiny'),
    _hornet('tiny-gf'),
    _timm('MaxViT', 'tiny', 'maxvit_tiny_tf_224'),
    _timm('CoAtNet', '0', 'coatnet_0_224'),
    _timm('CoAtNet', '0-rw', 'coatnet_0_rw_224'),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    generator = torch.Generator().manual_seed(0)
    for n, *size in QUICK if quick else SIZES:
        x = torch.randn(n, 3, *size, generator=generator).to(device, dtype)
        for peer in PEERS:
            yield _case(peer, x)


def _case(peer: Peer, x: Tensor) -> Case:
    title = f'{peer.name}, {"x".join(map(str, (len(x), *x.shape[2:])))}'
    inputs = {'x': x.detach().requires_grad_()}
    size = tuple(x.shape[2:])
    ours = MODELS.build(peer.ours(size)).eval().to(x)
    runs, nets, unavailable = {'ours': lambda x: ours(x)[-1]}, {'ours': ours}, {}
    try:
        theirs = peer.make(size)
    except ImportError as error:
        unavailable = {peer.package: f'not installed: {error.name}'}
    else:
        theirs.eval()  # some return None here
        theirs.to(x)
        state = convert(theirs.state_dict(), peer.source)
        state = {key: value for key, value in state.items() if not key.startswith('head.')}
        ours.load_strictly(state, peer.name)
        runs[peer.package], nets[peer.package] = lambda x: peer.run(theirs, x), theirs
    parameters = {
        name: [p for p in net.parameters() if p.requires_grad] for name, net in nets.items()
    }
    return Case(title, inputs, runs, unavailable, parameters=parameters)
