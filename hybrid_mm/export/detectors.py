"""End-to-end graphs of detectors."""

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.export.detectors_decoding import (
    Detector,
    candidates,
    decode,
    nms_settings,
    positive,
    suppress,
)
from hybrid_mm.export.detectors_regions import TwoStageDetector
from hybrid_mm.export.graphs import ExportError, Network

__all__ = ['DenseDetector', 'detector_graph']


def detector_graph(model: nn.Module) -> Network:
    """The network of a detector.

    Args:
        model: Detector of MMDetection.

    Raises:
        ExportError: Its head has no end-to-end graph.
    """
    if getattr(model, 'roi_head', None) is not None:
        return TwoStageDetector(model)
    return DenseDetector(model)


class DenseDetector(Detector):
    """A detector with a dense head that MMDetection decodes in the usual way.

    RetinaNet, FCOS, ATSS, GFL and others. Outputs are ``boxes`` (N, K, 4), ``scores`` (N, K) and
    ``labels`` (N, K), the best first; after the last object, scores are 0 and labels -1.

    Args:
        model: Detector with a ``bbox_head``.

    Raises:
        ExportError: The head is decoded in another way, or its ``test_cfg`` cannot be followed.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: Any) -> None:
        super().__init__()
        from mmdet.models.dense_heads import GFLHead
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

        head = getattr(model, 'bbox_head', None)
        name, kind = type(head).__name__, type(head)
        if head is None:
            raise ExportError(f'{type(model).__name__} has no end-to-end graph; use --raw')
        usual = isinstance(head, BaseDenseHead) and all(
            getattr(kind, method) in (getattr(BaseDenseHead, method), getattr(GFLHead, method))
            for method in ('predict', 'predict_by_feat', '_predict_by_feat_single',
                           '_bbox_post_process')
        )  # fmt: skip
        usual = usual and getattr(head, 'predict_box_type', 'hbox') == 'hbox'
        usual = usual and getattr(model, 'mask_head', None) is None
        if not usual or getattr(getattr(head, 'loss_cls', None), 'custom_cls_channels', False):
            raise ExportError(
                f'{name} has no end-to-end graph: it does not decode boxes as RetinaNet, FCOS, '
                'ATSS or GFL do; use --raw'
            )
        self.model: Any = model
        self.least = max(max(pair) for pair in head.prior_generator.strides) + 1
        self.integrates = isinstance(head, GFLHead)  # deltas are distributions
        test = head.test_cfg
        threshold, self.agnostic = nms_settings(test.get('nms'), name)
        self.candidates = positive(test, 'nms_pre', name)
        self.most = positive(test, 'max_per_img', name)
        self.min_size = test.get('min_bbox_size', -1)
        self.settings = {
            'score_threshold': torch.tensor(float(test.get('score_thr', 0))),
            'iou_threshold': torch.tensor(threshold),
        }

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        head = self.model.bbox_head
        score_threshold, iou_threshold = settings
        maps = head(self.model.extract_feat(x))
        priors = head.prior_generator.grid_priors(
            [scores.shape[2:] for scores in maps[0]], dtype=x.dtype, device=x.device
        )
        levels = []
        for i, (level, anchors) in enumerate(zip(zip(*maps, strict=True), priors, strict=True)):
            scores, labels, deltas, anchors = candidates(
                head, level, anchors, self.candidates, score_threshold
            )
            if self.integrates:
                stride = head.prior_generator.strides[i][0]
                shape = *deltas.shape[:2], 4
                deltas = head.integral(deltas.flatten(0, 1)).reshape(shape) * stride
                anchors = head.anchor_center(anchors.flatten(0, 1)).reshape(*shape[:2], 2)
            levels.append((scores, labels, deltas, anchors))
        scores, labels, deltas, anchors = (
            torch.cat(parts, 1) for parts in zip(*levels, strict=True)
        )
        boxes = decode(head.bbox_coder, anchors, deltas, size)
        groups = None if self.agnostic else labels
        boxes, scores, places = suppress(
            boxes, scores, groups, iou_threshold, self.most, self.min_size
        )
        labels = torch.where(scores > 0, labels.gather(1, places), -1)
        return boxes, scores, labels
