"""End-to-end graphs of detectors with two or more stages: proposals, regions, masks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.export.detectors_decoding import (
    Detector,
    candidates,
    decode,
    nms_settings,
    positive,
    suppress,
)
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.operators import pyramid_roi_align

__all__ = ['TwoStageDetector']


class TwoStageDetector(Detector):
    """Faster and Mask R-CNN, Cascade (Mask) R-CNN and Hybrid Task Cascade.

    Outputs are ``boxes`` (N, K, 4), ``scores`` (N, K), ``labels`` (N, K), the best first, and, if
    the model has them, ``masks`` (N, K, 28, 28), probabilities within the box of the predicted
    class. After the last object, scores are 0 and labels -1.

    Args:
        model: Detector with an ``rpn_head`` and a ``roi_head``.

    Raises:
        ExportError: A part of it has no end-to-end graph, or its ``test_cfg`` cannot be followed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.head: Any = model.roi_head
        head = self.head
        self._check()
        heads = head.bbox_head if self.cascade else [head.bbox_head]
        extractors = head.bbox_roi_extractor if self.cascade else [head.bbox_roi_extractor]
        self.box_heads, self.box_regions = list(heads), list(extractors)
        rpn, test = model.rpn_head.test_cfg, head.test_cfg
        self.rpn_threshold, self.rpn_agnostic = nms_settings(rpn.get('nms'), 'rpn_head')
        self.least = max(max(pair) for pair in model.rpn_head.prior_generator.strides) + 1
        self.candidates = positive(rpn, 'nms_pre', 'rpn_head')
        self.proposals = positive(rpn, 'max_per_img', 'rpn_head')
        self.min_size = rpn.get('min_bbox_size', -1)
        threshold, self.agnostic = nms_settings(test.get('nms'), 'roi_head')
        self.most = positive(test, 'max_per_img', 'roi_head')
        self.settings = {
            'score_threshold': torch.tensor(float(test.score_thr)),
            'iou_threshold': torch.tensor(threshold),
        }
        masks = ('masks',) if head.with_mask else ()
        if masks:
            self.properties['thresholds'] = {'mask': float(test.mask_thr_binary)}
        self.outputs = ('boxes', 'scores', 'labels', *masks)

    def _check(self) -> None:
        """Refuse what is computed in another way."""
        from mmdet.models.dense_heads import RPNHead
        from mmdet.models.roi_heads import (
            CascadeRoIHead,
            HybridTaskCascadeRoIHead,
            StandardRoIHead,
        )
        from mmdet.models.roi_heads.bbox_heads import BBoxHead
        from mmdet.models.roi_heads.mask_heads import FCNMaskHead
        from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

        head, rpn = self.head, getattr(self.model, 'rpn_head', None)
        kinds = StandardRoIHead, CascadeRoIHead, HybridTaskCascadeRoIHead
        if type(head) not in kinds:
            raise ExportError(
                f'{type(head).__name__} has no end-to-end graph; those of Faster, Mask and Cascade '
                'R-CNN and of HTC have one; use --raw'
            )
        if rpn is None:
            raise ExportError(
                f'{type(self.model).__name__} takes its proposals from a file and has no '
                'end-to-end graph; Faster R-CNN has one'
            )
        if type(rpn) is not RPNHead:
            raise ExportError(
                f'{type(rpn).__name__} has no end-to-end graph; RPNHead has one; use --raw'
            )
        self.cascade = type(head) is not StandardRoIHead
        self.hybrid = type(head) is HybridTaskCascadeRoIHead
        if hasattr(self.model, 'panoptic_fusion_head'):
            raise ExportError(f'{type(self.model).__name__} has no end-to-end graph; use --raw')
        for module in head.bbox_head if self.cascade else [head.bbox_head]:
            name, usual = type(module).__name__, BBoxHead._predict_by_feat_single
            if getattr(type(module), '_predict_by_feat_single', None) is not usual:
                raise ExportError(f'{name} has no end-to-end graph; use --raw')
            if not module.with_reg or not module.with_cls or module.predict_box_type != 'hbox':
                raise ExportError(
                    f'{name} has no end-to-end graph without classes and upright boxes; use --raw'
                )
            if module.custom_cls_channels or module.custom_activation:
                raise ExportError(
                    f'{name} with {type(module.loss_cls).__name__}, which has an activation of its '
                    'own, has no end-to-end graph; use --raw'
                )
        masks = head.mask_head if head.with_mask else []
        for module in masks if isinstance(masks, nn.ModuleList | list) else [masks]:
            usual = FCNMaskHead._predict_by_feat_single
            if getattr(type(module), '_predict_by_feat_single', None) is not usual:
                raise ExportError(f'{type(module).__name__} has no end-to-end graph; use --raw')
        if self.hybrid and head.with_mask and not head.mask_info_flow:
            raise ExportError('HTC without mask_info_flow has no end-to-end graph; use --raw')
        extractors = ('bbox_roi_extractor', 'mask_roi_extractor', 'semantic_roi_extractor')
        for module in (getattr(head, name, None) for name in extractors):
            several: Any = module if isinstance(module, nn.ModuleList) else [module]
            for extractor in several:
                if extractor is None:
                    continue
                layer: Any = extractor.roi_layers[0]
                if (
                    type(extractor) is not SingleRoIExtractor
                    or type(layer).__name__ != 'RoIAlign'
                    or layer.pool_mode != 'avg'
                ):
                    raise ExportError(
                        f'{type(extractor).__name__} with {type(layer).__name__} has no end-to-end '
                        "graph; SingleRoIExtractor with RoIAlign and pool_mode='avg' has one"
                    )

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        maps = self.model.extract_feat(x)
        semantic = None
        if self.hybrid and self.head.with_semantic:
            semantic = self.head.semantic_head(maps)[1]
        boxes, counts = self._propose(maps, size)
        boxes, scores, labels = self._classify(maps, semantic, boxes, counts, size, *settings)
        if len(self.outputs) == 3:
            return boxes, scores, labels
        boxes, scores, labels = trimmed(boxes, scores, labels)
        rois = with_images(boxes)
        masks = self._mask(maps, semantic, rois, labels.clamp(min=0).flatten())
        return boxes, scores, labels, masks.unflatten(0, boxes.shape[:2])

    def _propose(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Proposals (N, R, 4) of the first stage, and which of them count, (N, R)."""
        head = self.model.rpn_head
        levels = list(zip(*head(maps), strict=True))
        anchors = head.prior_generator.grid_priors(
            [level[0].shape[2:] for level in levels], dtype=maps[0].dtype, device=maps[0].device
        )
        found = [
            candidates(head, level, priors, self.candidates, None)
            for level, priors in zip(levels, anchors, strict=True)
        ]
        groups = torch.cat([torch.full_like(part[1], i) for i, part in enumerate(found)], 1)
        scores, _, deltas, priors = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        boxes = decode(head.bbox_coder, priors, deltas, size)
        threshold = torch.tensor(self.rpn_threshold)
        apart = None if self.rpn_agnostic else groups
        boxes, scores, _ = suppress(boxes, scores, apart, threshold, self.proposals, self.min_size)
        return boxes, scores > 0

    def _classify(
        self,
        maps: Sequence[Tensor],
        semantic: Tensor | None,
        boxes: Tensor,
        counts: Tensor,
        size: tuple[int, int],
        score_threshold: Tensor,
        iou_threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the objects in proposals (N, R, 4)."""
        shape: Any = boxes.shape[:2]
        total: Any = 0.0
        for i, (head, extractor) in enumerate(zip(self.box_heads, self.box_regions, strict=True)):
            features = self._features(extractor, maps, semantic, with_images(boxes), 'bbox')
            logits, deltas = (part.unflatten(0, shape) for part in head(features))
            total = total + logits
            if i + 1 < len(self.box_heads):
                if not head.reg_class_agnostic:
                    best = logits[..., :-1].argmax(-1)[..., None, None].expand(-1, -1, 1, 4)
                    deltas = deltas.unflatten(-1, (-1, 4)).gather(2, best)[:, :, 0]
                boxes = decode(head.bbox_coder, boxes, deltas, size)
        scores = (total / len(self.box_heads)).softmax(-1)[..., :-1]
        classes = scores.shape[-1]
        deltas = deltas.unflatten(-1, (-1, 4))
        priors = boxes[:, :, None].expand(-1, -1, deltas.shape[2], -1)
        boxes = decode(head.bbox_coder, priors, deltas, size).expand(-1, -1, classes, -1)
        scores = torch.where(counts[..., None] & (scores > score_threshold), scores, -1.0)
        labels = torch.arange(classes, device=scores.device).expand(scores.shape).flatten(1)
        groups = None if self.agnostic else labels
        boxes, scores, places = suppress(
            boxes.flatten(1, 2), scores.flatten(1), groups, iou_threshold, self.most
        )
        return boxes, scores, torch.where(scores > 0, labels.gather(1, places), -1)

    def _mask(
        self, maps: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor
    ) -> Tensor:
        """Probabilities (R, h, w) of the labels (R,) within regions (R, 5)."""
        head = self.head
        if not self.cascade:
            features = self._features(head.mask_roi_extractor, maps, None, rois, 'mask')
            return of_class(head.mask_head, head.mask_head(features), labels)
        if self.hybrid:
            features = self._features(head.mask_roi_extractor[-1], maps, semantic, rois, 'mask')
            last = None
            for stage in head.mask_head:
                logits, last = stage(features, last)
            return of_class(stage, logits, labels)
        found: Any = 0.0
        for extractor, stage in zip(head.mask_roi_extractor, head.mask_head, strict=True):
            features = self._features(extractor, maps, None, rois, 'mask')
            found = found + of_class(stage, stage(features), labels)
        return found / len(head.mask_head)

    def _features(
        self,
        extractor: Any,
        maps: Sequence[Tensor],
        semantic: Tensor | None,
        rois: Tensor,
        user: str,
    ) -> Tensor:
        """Features of regions (R, 5) for the heads of boxes ('bbox') or masks ('mask')."""
        features = regions(extractor, maps, rois)
        if semantic is not None and user in self.head.semantic_fusion:
            more = regions(self.head.semantic_roi_extractor, [semantic], rois)
            if more.shape[2:] != features.shape[2:]:
                height, width = features.shape[2:]
                more = F.adaptive_avg_pool2d(more, (height, width))
            features = features + more
        if self.head.with_shared_head:
            features = self.head.shared_head(features)
        return features


def trimmed(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first rows, as many as the image with the most objects has, at least one.

    Masks are computed for these rows only.
    """
    rows = (scores > 0).sum(1).max().clamp(min=1).item()
    torch._check(rows >= 1)
    torch._check(rows <= scores.shape[1])
    return boxes[:, :rows], scores[:, :rows], labels[:, :rows]


def with_images(boxes: Tensor) -> Tensor:
    """Regions (N * R, 5) of boxes (N, R, 4): each with the number of its image."""
    images = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    images = images[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat([images, boxes], 2).flatten(0, 1)


def of_class(head: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities (R, h, w) of the labels (R,), of the logits (R, classes or 1, h, w)."""
    if head.class_agnostic:
        return logits[:, 0].sigmoid()
    index = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)[:, 0].sigmoid()


def regions(extractor: Any, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Features of regions (R, 5), each from the level of its size."""
    maps = list(maps[: extractor.num_inputs])
    layer = extractor.roi_layers[0]
    height, width = layer.output_size
    levels = extractor.map_roi_levels(rois, len(maps))
    return pyramid_roi_align(
        rois,
        levels,
        maps,
        list(extractor.featmap_strides),
        height,
        width,
        max(layer.sampling_ratio, 0),
        layer.aligned,
    )
