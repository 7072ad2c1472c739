"""Whole backbones against those of MMPretrain and timm with the same weights.

Forward and backward from images to the last map, in eval mode (else norms and drop paths would
differ at random), at 224 x 224 and at a detection size. That is square where a peer takes no other;
the peer and ours are then built for it. Weights are copied through the converters; if outputs or
gradients disagree, the run ends. Peers that cannot be imported are left out with a note.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from hybrid_mm.benchmarks.core import Case
from hybrid_mm.convert import convert
from hybrid_mm.ops.layout import dense_gradient

PACKAGES = ('mmpretrain', 'timm')


# two images: with one, torch's batch norm gives peers wrong gradients, see docs/contributing.md
SIZES = ((4, 224, 224), (2, 640, 960))
# of LeViT, which is built for single images too
SQUARE = ((1, 224, 224), (4, 224, 224), (2, 768, 768))
QUICK = ((2, 64, 64),)
Size = tuple[int, int]


class Peer(NamedTuple):
    """A network of another package and ours with the same weights.

    Attributes:
        name: Name of the variant.
        ours: Config of our backbone, which returns the last map, for a size of images.
        package: Package of the peer.
        make: Builds the peer in eval mode for a size of images; its state dict converts to ours.
        run: Computes the last map of the peer.
        source: Layout of the peer's weights, a key of ``SOURCES``.
        sizes: Sizes of the images, (N, H, W).
    """

    name: str
    ours: Callable[[Size], dict]
    package: str
    make: Callable[[Size], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    source: str
    sizes: tuple[tuple[int, int, int], ...] = SIZES


def _evaluated(net: nn.Module) -> nn.Module:
    net.eval()  # eval() returns None in some networks
    return net


def _mmpretrain(title: str, ours: dict, class_name: str, arch: str, source: str, **theirs) -> Peer:
    """A network of MMPretrain that takes images of any size."""

    def make(size: Size) -> nn.Module:
        from mmpretrain import models

        return _evaluated(getattr(models, class_name)(arch, **theirs))

    def config(size: Size) -> dict:
        return dict(type=f'hybrid_mm.{title.split("-")[0]}', out_indices=(3,)) | ours

    return Peer(title, config, 'mmpretrain', make, lambda net, x: net(x)[-1], source)


def _hornet(arch: str) -> Peer:
    theirs = dict(scale=1 / 3, gap_before_final_norm=False, out_indices=(3,))
    return _mmpretrain(f'HorNet-{arch}', dict(arch=arch), 'HorNet', arch, 'hornet', **theirs)


def _mvitv2(arch: str) -> Peer:
    """MViTv2 without windows, which the peer lacks."""
    ours = dict(arch=arch, window_size=None, double_kv_stride=False)
    return _mmpretrain(f'MViTv2-{arch}', ours, 'MViT', arch, 'mvitv2', out_scales=(3,))


def _vit(arch: str) -> Peer:
    theirs = dict(img_size=224, out_type='featmap')
    ours = dict(arch=arch, final_norm=True)
    return _mmpretrain(f'ViT-{arch}', ours, 'VisionTransformer', f'deit-{arch}', 'vit', **theirs)


def _vitdet(arch: str) -> Peer:
    """ViTDet with the position embeddings of the peer, which are made for 224 pixels."""
    ours = dict(type='hybrid_mm.ViT', arch=arch, window_size=14, relative=True, class_token=False)
    theirs = dict(img_size=224, out_channels=0)
    return _mmpretrain(f'ViTDet-{arch}', ours, 'ViTSAM', arch, 'vit', **theirs)


def _levit(arch: str, package: str) -> Peer:
    def evaluated(net: nn.Module) -> nn.Module:
        net.eval()
        net.attentions = [m for m in net.modules() if hasattr(m, 'attention_biases')]
        *_, norm = (m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        norm.register_forward_hook(lambda _, args, y: dense_gradient(y))  # for single images
        return net

    def set_mode(net: nn.Module, x: Tensor) -> None:
        """In eval mode the peer caches its biases, without their gradient: only where none is."""
        for layer in net.attentions:  # these modules alone: their norms stay in eval mode
            layer.training = torch.is_grad_enabled() or x.is_cuda

    def from_mmpretrain(size: Size) -> nn.Module:
        from mmpretrain.models import LeViT

        return evaluated(LeViT(arch, img_size=size[0], out_indices=(2,)))

    def from_timm(size: Size) -> nn.Module:
        import timm

        return evaluated(timm.create_model(f'levit_{arch}', img_size=size[0], num_classes=0))

    def last_map(net: nn.Module, x: Tensor) -> Tensor:
        set_mode(net, x)
        return net(x)[-1]

    def tokens_to_map(net: nn.Module, x: Tensor) -> Tensor:
        set_mode(net, x)
        tokens = net.forward_features(x)
        return tokens.transpose(1, 2).unflatten(2, (-(-x.shape[2] // 64), -1))

    timm = package == 'timm'
    return Peer(
        f'LeViT-{arch}',
        lambda size: dict(type='hybrid_mm.LeViT', arch=arch, img_size=size[0], out_indices=(4,)),
        package,
        from_timm if timm else from_mmpretrain,
        tokens_to_map if timm else last_map,
        'levit-timm' if timm else 'levit-mmpretrain',
        SQUARE,
    )


def _timm(class_name: str, arch: str, name: str) -> Peer:
    """MaxViT or CoAtNet; timm makes windows and tables for the size of the images."""

    def make(size: Size) -> nn.Module:
        import timm

        net = timm.create_model(name, img_size=size)
        net.norm = net.head = nn.Identity()
        return _evaluated(net)

    def ours(size: Size) -> dict:
        own = dict(img_size=size)
        if class_name == 'MaxViT':
            own = dict(window_size=tuple(side // 32 for side in size))
        return dict(type=f'hybrid_mm.{class_name}', arch=arch, out_indices=(3,), **own)

    title, source = f'{class_name}-{arch}', class_name.lower()
    return Peer(title, ours, 'timm', make, lambda net, x: net.stages(net.stem(x)), source)


PEERS = (
    _mmpretrain('VAN-b0', dict(arch='b0'), 'VAN', 'tiny', 'van-mmpretrain', out_indices=(3,)),
    _hornet('tiny'),
    _hornet('tiny-gf'),
    _mvitv2('tiny'),
    _vit('small'),
    _vitdet('base'),
    _timm('MaxViT', 'tiny', 'maxvit_tiny_tf_224'),
    _timm('CoAtNet', '0', 'coatnet_0_224'),
    _timm('CoAtNet', '0-rw', 'coatnet_0_rw_224'),
    _levit('128s', 'timm'),
    _levit('256', 'timm'),
    _levit('256', 'mmpretrain'),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    generator = torch.Generator().manual_seed(0)
    for peer in PEERS:
        for n, *size in QUICK if quick else peer.sizes:
            x = torch.randn(n, 3, *size, generator=generator).to(device, dtype)
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
        theirs.to(x)
        state = convert(theirs.state_dict(), peer.source)
        state = {key: value for key, value in state.items() if not key.startswith('head.')}
        ours.load_strictly(state, peer.name)
        runs[peer.package], nets[peer.package] = lambda x: peer.run(theirs, x), theirs
    parameters = {
        name: [p for p in net.parameters() if p.requires_grad] for name, net in nets.items()
    }
    return Case(title, inputs, runs, unavailable, parameters=parameters, slack=10)
