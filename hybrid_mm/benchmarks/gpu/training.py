"""Detectors and segmenters train for some steps on drawn data; without mmcv, backbones alone."""

import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from hybrid_mm.benchmarks.annotations import drawn_samples
from hybrid_mm.benchmarks.gpu.compare import name_of, watched
from hybrid_mm.benchmarks.gpu.task import Failed, Options, Skipped, Task
from hybrid_mm.compat.torch_api import GradScaler
from hybrid_mm.zoo.families import build, model_with, shortened

_STEPS, _WARM = 20, 5
_CLASSES = 10  # of the plain head
_DETECTION, _SEGMENTATION, _TINY = (2, 800, 1216), (4, 512, 512), (2, 96, 128)


class Training(NamedTuple):
    """What is trained: a backbone and one of the heads of ``model_with``."""

    backbone: dict
    head: str


TRAININGS = {
    'Mask R-CNN, NAT-mini': Training(dict(type='hybrid_mm.NAT', arch='mini'), 'Mask R-CNN'),
    'UPerNet, PeLK-T': Training(dict(type='hybrid_mm.PeLK', arch='tiny'), 'UPerNet'),
    'RetinaNet, HaloNet-R50': Training(dict(type='hybrid_mm.HaloNet'), 'RetinaNet'),
    'Semantic FPN, VAN-LSKA': Training(
        dict(type='hybrid_mm.VAN', attention='lska', kernel_size=23), 'Semantic FPN'
    ),
    'UPerNet, SLaK-T': Training(dict(type='hybrid_mm.SLaK', arch='tiny'), 'UPerNet'),
}


def tasks(options: Options) -> Iterator[Task]:
    """Every training in both memory formats."""
    for i, (name, training) in enumerate(TRAININGS.items()):
        for channels_last in (False, True):
            run = partial(train, training, options, channels_last)
            title = f'training/{name}' + '/channels-last' * channels_last
            order = (20 if i < 4 else 45) + channels_last / 2
            yield Task(title, run, 180.0, alone=True, order=order)


def train(training: Training, options: Options, channels_last: bool) -> tuple[str, dict[str, Any]]:
    """Train for some steps with automatic mixed precision.

    Raises:
        Failed: A loss or a weight that is not finite, or a kernel that did not run.
        Skipped: mmcv was built without CUDA.
    """
    torch.manual_seed(0)
    device = torch.device(options.device)
    try:
        model, images, loss = _model(training, options, device)
        if channels_last:
            model.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        with watched():
            text, figures = _steps(model, partial(loss, images), options)
    except RuntimeError as error:
        if 'compiled with GPU support' in str(error):
            raise Skipped(f'mmcv was built without CUDA: {error}') from None
        raise
    alone = ', a plain head, as mmcv, MMDetection or MMSegmentation is missing'
    return text + alone * isinstance(model, _PlainHead), figures


def _model(
    training: Training, options: Options, device: torch.device
) -> tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]:
    """A model in training mode, a batch of images, and the loss of such a batch."""
    scope = 'mmdet' if training.head in ('Mask R-CNN', 'RetinaNet') else 'mmseg'
    size = _TINY if options.dry else _DETECTION if scope == 'mmdet' else _SEGMENTATION
    backbone = shortened(training.backbone) if options.dry else training.backbone
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size[0], 3, *size[1:], generator=generator).to(device)
    if not all(map(_importable, ('mmcv.ops', scope))):
        plain = _PlainHead(build(backbone)).to(device).train()
        return plain, images, plain
    model = revert_sync_batchnorm(model_with(backbone, training.head))
    model.init_weights()
    model.to(device).train()
    classes = 10 if scope == 'mmdet' else model.decode_head.num_classes
    masks = training.head == 'Mask R-CNN'
    samples = drawn_samples(scope, classes, size, device, generator, masks)
    return model, images, lambda x: model.parse_losses(model.loss(x, samples))[0]


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except Exception:  # a broken installation may raise anything
        return False
    return True


class _PlainHead(nn.Module):
    """A 1x1 convolution on every map, which learns one label for each quarter of an image."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Conv2d(c, _CLASSES, 1) for c in backbone.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Loss of images (N, 3, H, W), whose labels depend on the place alone."""
        losses = []
        for head, level in zip(self.heads, self.backbone(x), strict=True):
            height, width = level.shape[2:]
            rows, columns = (
                torch.arange(side, device=x.device) * 2 // side for side in (height, width)
            )
            labels = (2 * rows[:, None] + columns).expand(len(x), -1, -1)
            losses.append(F.cross_entropy(head(level), labels))
        return torch.stack(losses).sum()


def _steps(
    model: nn.Module, loss_of: Callable[[], Tensor], options: Options
) -> tuple[str, dict[str, Any]]:
    """Train, and tell losses, steps per second and peak memory."""
    on_gpu = options.device == 'cuda'
    dtype = torch.float16 if on_gpu else torch.float32  # mmcv has no bfloat16 on a CPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = GradScaler(options.device, enabled=on_gpu)
    losses, seconds, skipped = [], [], 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2 if options.dry else _STEPS):
        before = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(options.device, dtype, on_gpu):
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scale = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < scale
        losses.append(loss.item())  # waits for the GPU
        seconds.append(time.perf_counter() - before)
    wrong = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    rate = 1 / statistics.median(seconds[_WARM:] or seconds)
    figures = dict(losses=losses, steps_per_second=rate, skipped_steps=skipped, type=name_of(dtype))
    text = f'loss {losses[0]:.3f} to {losses[-1]:.3f}, {rate:.2f} steps/s'
    if on_gpu:
        figures['peak_gib'] = torch.cuda.max_memory_allocated() / 2**30
        text += f', {figures["peak_gib"]:.2f} GiB'
    if skipped:
        text += f', {skipped} steps without a finite gradient'
    if wrong or not all(map(math.isfinite, losses)) or skipped > len(losses) // 2:
        raise Failed(f'{text}; weights that are not finite: {", ".join(wrong[:3]) or 0}', **figures)
    return text, figures
