"""Training of whole detectors and segmenters: losses and all gradients of a batch.

Each config is built with our operators and with the plain formulation of its paper
(``impl='reference'``), or with MMPretrain's backbone instead of ours, with the same weights.
Networks are in training mode with frozen batch statistics, without drop path and dropout; if losses
or gradients disagree, the run ends. Heads are RetinaNet and those of segmentation, as two-stage
detectors sample proposals at random.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.benchmarks.annotations import drawn_samples
from hybrid_mm.benchmarks.core import Case
from hybrid_mm.convert import convert
from hybrid_mm.run.config_folder import installed_configs

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')
SIZES = dict(mmdet=(1, 480, 640), mmseg=(2, 384, 384))
QUICK = dict(mmdet=(2, 96, 128), mmseg=(2, 96, 96))


class Training(NamedTuple):
    """A config, and another backbone that is measured against its own.

    Attributes:
        config: Path below ``configs/``, without the suffix.
        other: Changes of the backbone's config, or with ``type`` another config.
        source: Layout of the other backbone's weights, if it is not ours.
    """

    config: str
    other: dict
    source: str | None = None


_PLAIN = dict(impl='reference')
TRAININGS = (
    Training('sasa/retinanet_sasa-r50_fpn_8xb8-150e_coco', _PLAIN),
    Training('halonet/r50-halo8_upernet_8xb2-160k_ade20k-512x512', _PLAIN),
    Training('acmix/swin-t-acmix_upernet_8xb2-160k_ade20k-512x512', _PLAIN),
    Training('evolving_attention/retinanet_ea-aa-r50_fpn_1x_coco', _PLAIN),
    Training('nat/nat-mini_upernet_8xb2-160k_ade20k-512x512', _PLAIN),
    Training('elsa/elsa-swin-t_upernet_8xb2-160k_ade20k-512x512', _PLAIN),
    Training('lesa/lesa-r50_upernet_8xb2-160k_ade20k-512x512', _PLAIN),
    Training(
        'hornet/hornet-tiny_upernet_8xb2-160k_ade20k-512x512',
        dict(type='mmpretrain.HorNet', arch='tiny', scale=1 / 3, gap_before_final_norm=False,
             out_indices=(0, 1, 2, 3)),
        'hornet',
    ),
    Training(
        'van/van-b0_upernet_8xb2-160k_ade20k-512x512',
        dict(type='mmpretrain.VAN', arch='tiny', out_indices=(0, 1, 2, 3)),
        'van-mmpretrain',
    ),
)  # fmt: skip


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    for training in TRAININGS:
        cfg = Config.fromfile(installed_configs() / f'{training.config}.py')
        size = (QUICK if quick else SIZES)[cfg.default_scope]
        yield _case(training, cfg, size, device, dtype)


def _case(
    training: Training, cfg: Config, size: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Case:
    torch.manual_seed(0)
    _disable_dropout(cfg.model)
    cfg.model.backbone.init_cfg = None
    model = _build(cfg)
    models, unavailable = {'ours': model}, {}
    name = training.other.get('type', 'plain formulation').split('.')[0]
    if 'type' in training.other:
        cfg.model.backbone = ConfigDict(training.other)
    else:
        cfg.model.backbone.update(training.other)
    try:
        other = _build(cfg)
    except (ImportError, KeyError) as error:
        unavailable[name] = f'cannot be built: {error}'
    else:
        _share(model, other, training.source)
        models[name] = other

    generator = torch.Generator().manual_seed(0)
    n, height, width = size
    x = torch.randn(n, 3, height, width, generator=generator).to(device, dtype).requires_grad_()
    classes = cfg.model.decode_head.num_classes if cfg.default_scope == 'mmseg' else 10
    samples = drawn_samples(cfg.default_scope, classes, size, device, generator)
    for net in models.values():
        _calibrate(net.to(device, dtype).train(), x.detach())
    network = '_'.join(training.config.rpartition('/')[2].split('_')[:2])
    return Case(
        f'{network}, {"x".join(map(str, size))}',
        {'x': x},
        {name: _loss(net, samples) for name, net in models.items()},
        unavailable,
        parameters={
            name: [p for p in net.parameters() if p.requires_grad] for name, net in models.items()
        },
    )


def _build(cfg: Config) -> BaseModel:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


@torch.no_grad()
def _calibrate(model: BaseModel, x: Tensor) -> None:
    """Freeze the batch statistics at those of x; with initial ones activations would explode."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.extract_feat(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _disable_dropout(node) -> None:
    """Set all rates of drop path and dropout in a config to 0, in place."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ('drop_path_rate', 'dropout_ratio'):
                node[key] = 0.0
            _disable_dropout(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _disable_dropout(value)


def _share(ours: BaseModel, other: BaseModel, source: str | None) -> None:
    """Give both models the same weights: the backbone of ``other``, the rest of ``ours``."""
    if source is None:
        other.load_state_dict(ours.state_dict())
        return
    state = convert(other.backbone.state_dict(), source)
    ours.backbone.load_strictly(state, source)
    rest = {k: v for k, v in ours.state_dict().items() if not k.startswith('backbone.')}
    other.load_state_dict(rest, strict=False)


def _loss(model: BaseModel, samples: list):
    def run(x: Tensor) -> Tensor:
        return model.parse_losses(model.loss(x, samples))[0]

    return run
