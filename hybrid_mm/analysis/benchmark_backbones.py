"""Whole backbones beside those of MMPretrain with the same weights.

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

PACKAGES = ('mmpretrain',)
SIZES = ((4, 224, 224), (1, 800, 1216))
QUICK = ((1, 64, 64),)


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: The variant.
        ours: Config of our backbone that returns the last map.
        package: Where the peer is from.
        make: Makes the peer, whose state dict converts to ours.
        run: Last map of the peer.
        source: Layout of the peer's weights.
    """

    name: str
    ours: dict
    package: str
    make: Callable[[], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    source: str


def _hornet(arch: str) -> Peer:
    def make() -> nn.Module:
        from mmpretrain.models import HorNet

        return HorNet(arch, scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))

    return Peer(
        f'HorNet-{arch}',
        dict(type='hybrid_mm.HorNet', arch=arch, out_indices=(3,)),
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        'hornet',
    )


def _mvitv2(arch: str) -> Peer:
    """Without windows, which the peer has not."""

    def make() -> nn.Module:
        from mmpretrain.models import MViT

        return MViT(arch, out_scales=(3,))

    ours = dict(
        type='hybrid_mm.MViTv2',
        arch=arch,
        window_size=None,
        double_kv_stride=False,
        out_indices=(3,),
    )
    return Peer(f'MViTv2-{arch}', ours, 'mmpretrain', make, lambda net, x: net(x)[-1], 'mvitv2')


def _vit(arch: str) -> Peer:
    def make() -> nn.Module:
        from mmpretrain.models import VisionTransformer

        return VisionTransformer(f'deit-{arch}', img_size=224, out_type='featmap')

    ours = dict(type='hybrid_mm.ViT', arch=arch, final_norm=True, out_indices=(3,))
    return Peer(f'ViT-{arch}', ours, 'mmpretrain', make, lambda net, x: net(x)[-1], 'vit')


def _vitdet(arch: str) -> Peer:
    """With the positions of the peer, which are made for 224 pixels."""

    def make() -> nn.Module:
        from mmpretrain.models import ViTSAM

        return ViTSAM(arch, img_size=224, out_channels=0)

    ours = dict(
        type='hybrid_mm.ViT',
        arch=arch,
        window_size=14,
        relative=True,
        class_token=False,
        out_indices=(3,),
    )
    return Peer(f'ViTDet-{arch}', ours, 'mmpretrain', make, lambda net, x: net(x)[-1], 'vit')


PEERS = (
    _hornet('tiny'),
    _hornet('tiny-gf'),
    _mvitv2('tiny'),
    _vit('small'),
    _vitdet('base'),
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
    ours = MODELS.build(peer.ours).eval().to(x)
    runs, nets, unavailable = {'ours': lambda x: ours(x)[-1]}, {'ours': ours}, {}
    try:
        theirs = peer.make()
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
