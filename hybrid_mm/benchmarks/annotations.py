"""Annotations that are drawn at random, for training steps without a data set."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

BOXES = 10
"""Objects of an image."""


def drawn_samples(
    scope: str,
    classes: int,
    size: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator,
    masks: bool = False,
    stuff: int = 0,
) -> list[Any]:
    """Data samples with boxes over the whole map, with random label maps, or with a class.

    Args:
        scope: 'mmdet', 'mmseg' or 'mmpretrain'.
        classes: Number of classes; the labels of boxes count up to it, again and again.
        size: Images, rows and columns.
        device: Where they are needed.
        generator: What they are drawn from.
        masks: Add to every box the mask that fills it.
        stuff: Number of classes of a label map that is added to the boxes; 0 for none.
    """
    n, height, width = size
    meta = dict(
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=(height, width),
        batch_input_shape=(height, width),
        scale_factor=(1.0, 1.0),
    )
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        labels = torch.randint(classes, (n,), generator=generator).to(device)
        return [DataSample(metainfo=meta).set_gt_label(label[None]) for label in labels]
    if scope == 'mmseg':
        from mmseg.structures import SegDataSample

        found = [SegDataSample(metainfo=meta) for _ in range(n)]
        for sample in found:
            sample.gt_sem_seg = _label_map(classes, height, width, device, generator)
            sample.gt_edge_map = _label_map(2, height, width, device, generator)  # of PIDNet
        return found
    from mmdet.structures import DetDataSample

    low = torch.rand(n, BOXES, 2, generator=generator) * 0.6
    high = low + 0.05 + torch.rand(n, BOXES, 2, generator=generator) * 0.35
    boxes = torch.cat([low, high], -1) * torch.tensor([width, height, width, height])
    found = []
    for box in boxes:
        found.append(DetDataSample(metainfo=meta))
        labels = torch.arange(len(box), device=device) % classes
        found[-1].gt_instances = InstanceData(bboxes=box.to(device), labels=labels)
        found[-1].ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4, device=device), labels=labels[:0]
        )
        if masks:
            found[-1].gt_instances.masks = _filled(box, height, width)
        if stuff:
            label_map = _label_map(stuff, height, width, device, generator)
            found[-1].gt_sem_seg = PixelData(sem_seg=label_map.data)
    return found


def _label_map(
    classes: int, height: int, width: int, device: torch.device, generator: torch.Generator
) -> PixelData:
    labels = torch.randint(classes, (1, height, width), generator=generator)
    return PixelData(data=labels.to(device))


def _filled(boxes: Tensor, height: int, width: int) -> Any:
    """Masks that fill boxes."""
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return BitmapMasks(masks, height, width)
