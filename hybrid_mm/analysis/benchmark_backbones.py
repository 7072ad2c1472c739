"""Whole backbones beside those of MMPretrain and timm with the same weights.

Forward and backward of images to the last map, in eval mode (norms and drop paths would differ by
chance else), at 224 x 224 and at a detection size, a square one where a peer takes no other (it is
built for that size then, and so is ours). Weights are copied through the converters, so that
outputs and gradients agree or the run ends. Peers that cannot be imported are left out with a note.
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
SQUARE = ((4, 224, 224), (1, 1024, 1024))
SMALL = ((2, 224, 224),)
QUICK = ((1, 64, 64),)


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: The variant.
        ours: Config of our backbone that returns the last map, from the height of the image.
        package: Where the peer is from.
        make: Makes the peer, whose state dict converts to ours, from the height of the image.
        run: Last map of the peer.
        source: Layout of the peer's weights.
        sizes: Images, (N, H, W).
        quick: Those of a test.
    """

    name: str
    ours: Callable[[int], dict]
    package: str
    make: Callable[[int], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    source: str
    sizes: tuple[tuple[int, int, int], ...] = SIZES
    quick: tuple[tuple[int, int, int], ...] = QUICK


def _timm(kind: str, arch: str, name: str, source: str) -> Peer:
    """A network of timm whose windows are those of 224 pixels."""

    def make(height: int) -> nn.Module:
        import timm

        return timm.create_model(name)

    return Peer(
        f'{kind}-{arch}',
        lambda height: dict(type=f'hybrid_mm.{kind}', arch=arch, out_indices=(3,)),
        'timm',
        make,
        lambda net, x: net.stages(net.stem(x)),
        source,
        SMALL,
        SMALL,
    )


def _mvitv2(arch: str) -> Peer:
    """Without windows, which the peer has not."""

    def make(height: int) -> nn.Module:
        from mmpretrain.models import MViT

        return MViT(arch, out_scales=(3,))

    ours = dict(
        type='hybrid_mm.MViTv2',
        arch=arch,
        window_size=None,
        double_kv_stride=False,
        out_indices=(3,),
    )
    return Peer(
        f'MViTv2-{arch}',
        lambda height: ours,
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        'mvitv2',
    )


def _vit(arch: str) -> Peer:
    def make(height: int) -> nn.Module:
        from mmpretrain.models import VisionTransformer

        return VisionTransformer(f'deit-{arch}', img_size=224, out_type='featmap')

    ours = dict(type='hybrid_mm.ViT', arch=arch, final_norm=True, out_indices=(3,))
    return Peer(
        f'ViT-{arch}', lambda height: ours, 'mmpretrain', make, lambda net, x: net(x)[-1], 'vit'
    )


def _vitdet(arch: str) -> Peer:
    """With the positions of the peer, which are made for 224 pixels."""

    def make(height: int) -> nn.Module:
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
    return Peer(
        f'ViTDet-{arch}', lambda height: ours, 'mmpretrain', make, lambda net, x: net(x)[-1], 'vit'
    )


def _hornet(arch: str) -> Peer:
    def make(height: int) -> nn.Module:
        from mmpretrain.models import HorNet

        return HorNet(arch, scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))

    return Peer(
        f'HorNet-{arch}',
        lambda height: dict(type='hybrid_mm.HorNet', arch=arch, out_indices=(3,)),
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        'hornet',
    )


def _levit(arch: str, package: str) -> Peer:
    def from_mmpretrain(height: int) -> nn.Module:
        from mmpretrain.models import LeViT

        return LeViT(arch, img_size=height, out_indices=(2,))

    def from_timm(height: int) -> nn.Module:
        import timm

        return timm.create_model(f'levit_{arch}', img_size=height, num_classes=0)

    def tokens_to_map(net: nn.Module, x: Tensor) -> Tensor:
        tokens = net.forward_features(x)
        return tokens.transpose(1, 2).unflatten(2, (-(-x.shape[2] // 64), -1))

    timm = package == 'timm'
    return Peer(
        f'LeViT-{arch}',
        lambda height: dict(type='hybrid_mm.LeViT', arch=arch, img_size=height, out_indices=(4,)),
        package,
        from_timm if timm else from_mmpretrain,
        tokens_to_map if timm else lambda net, x: net(x)[-1],
        'levit-timm' if timm else 'levit-mmpretrain',
        SQUARE,
    )


PEERS = (
    _hornet('tiny'),
    _hornet('tiny-gf'),
    _levit('128s', 'timm'),
    _levit('256', 'timm'),
    _levit('256', 'mmpretrain'),
    _timm('MaxViT', 'tiny', 'maxvit_tiny_tf_224', 'maxvit'),
    _timm('CoAtNet', '0', 'coatnet_0_224', 'coatnet'),
    _timm('CoAtNet', '0-rw', 'coatnet_0_rw_224', 'coatnet'),
    _mvitv2('tiny'),
    _vit('small'),
    _vitdet('base'),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    generator = torch.Generator().manual_seed(0)
    for peer in PEERS:
        for n, *size in peer.quick if quick else peer.sizes:
            x = torch.randn(n, 3, *size, generator=generator).to(device, dtype)
            yield _case(peer, x)


def _case(peer: Peer, x: Tensor) -> Case:
    title = f'{peer.name}, {"x".join(map(str, (len(x), *x.shape[2:])))}'
    inputs = {'x': x.detach().requires_grad_()}
    ours = MODELS.build(peer.ours(x.shape[2])).eval().to(x)
    runs, nets, unavailable = {'ours': lambda x: ours(x)[-1]}, {'ours': ours}, {}
    try:
        theirs = peer.make(x.shape[2])
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
    return Case(title, inputs, runs, unavailable, parameters=parameters, slack=10)
