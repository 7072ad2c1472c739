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
# two images: with one, torch's batch norm gives peers wrong gradients, see docs/contributing.md
SQUARE = ((4, 224, 224), (2, 768, 768))
QUICK = ((2, 64, 64),)


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: The variant.
        ours: Config of our backbone that returns the last map, from the height of the image.
        package: Where the peer is from.
        make: Makes the peer in eval mode, whose state dict converts to ours, from the height of the
            image.
        run: Last map of the peer.
        source: Layout of the peer's weights.
        sizes: Images, (N, H, W).
    """

    name: str
    ours: Callable[[int], dict]
    package: str
    make: Callable[[int], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    source: str
    sizes: tuple[tuple[int, int, int], ...] = SIZES


def _hornet(arch: str) -> Peer:
    def make(height: int) -> nn.Module:
        from mmpretrain.models import HorNet

        net = HorNet(arch, scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))
        net.eval()  # it returns None
        return net

    return Peer(
        f'HorNet-{arch}',
        lambda height: dict(type='hybrid_mm.HorNet', arch=arch, out_indices=(3,)),
        'mmpretrain',
        make,
        lambda net, x: net(x)[-1],
        'hornet',
    )


def _levit(arch: str, package: str) -> Peer:
    def differentiable(net: nn.Module) -> nn.Module:
        """In eval mode, the biases would be cached without their gradient."""
        net.eval()
        for module in net.modules():
            if hasattr(module, 'attention_biases'):
                module.training = True  # of this module alone: its norms stay in eval mode
        return net

    def from_mmpretrain(height: int) -> nn.Module:
        from mmpretrain.models import LeViT

        return differentiable(LeViT(arch, img_size=height, out_indices=(2,)))

    def from_timm(height: int) -> nn.Module:
        import timm

        net = timm.create_model(f'levit_{arch}', img_size=height, num_classes=0)
        return differentiable(net)

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
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    generator = torch.Generator().manual_seed(0)
    for peer in PEERS:
        for n, *size in QUICK if quick else peer.sizes:
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
        theirs.to(x)
        state = convert(theirs.state_dict(), peer.source)
        state = {key: value for key, value in state.items() if not key.startswith('head.')}
        ours.load_strictly(state, peer.name)
        runs[peer.package], nets[peer.package] = lambda x: peer.run(theirs, x), theirs
    parameters = {
        name: [p for p in net.parameters() if p.requires_grad] for name, net in nets.items()
    }
    return Case(title, inputs, runs, unavailable, parameters=parameters)
