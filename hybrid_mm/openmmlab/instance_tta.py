"""Test-time augmentation of detectors with instance masks."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from mmcv.ops import batched_nms
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, HybridTaskCascadeRoIHead, StandardRoIHead
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

__all__ = ['InstanceTTAModel']

Features = tuple[Tensor, ...]


def _standard(head: nn.Module, x: Features, rois: Tensor) -> list[Tensor]:
    return [head._mask_forward(x, rois)['mask_preds']]


def _cascade(head: nn.Module, x: Features, rois: Tensor) -> list[Tensor]:
    return [head._mask_forward(i, x, rois)['mask_preds'] for i in range(head.num_stages)]


def _hybrid(head: nn.Module, x: Features, rois: Tensor) -> list[Tensor]:
    semantic = head.semantic_head(x)[1] if head.with_semantic else None
    return head._mask_forward(-1, x, rois, semantic_feat=semantic, training=False)['mask_preds']


_MASK_LOGITS: dict[Callable, Callable[..., list[Tensor]]] = {
    StandardRoIHead.predict_mask: _standard,
    CascadeRoIHead.predict_mask: _cascade,
    HybridTaskCascadeRoIHead.predict_mask: _hybrid,
}


"""Functions that compute mask logits, (n, C, h, w) per stage, by the head's prediction method."""


class InstanceTTAModel(DetTTAModel):
    """Test-time augmentation that merges boxes and masks.

    As in detectron2's ``GeneralizedRCNNWithTTA``, the boxes of all augmentations are mapped to the
    original image and merged by non-maximum suppression; then the mask head predicts masks for the
    merged boxes in every augmented image, and its probabilities are mapped back, averaged and
    pasted. The features of an augmented image are computed once.

    Detectors without masks are augmented as by ``DetTTAModel``.

    Args:
        tta_cfg: ``nms`` and ``max_per_img`` for the merged boxes.
        module: Detector.
        kwargs: See MMEngine's ``BaseTTAModel``.

    Raises:
        ValueError: The detector predicts masks but is not a two-stage detector, or has another
            mask head than those of (cascade) Mask R-CNN and HTC.
    """

    def __init__(self, tta_cfg: dict, **kwargs):
        super().__init__(tta_cfg=tta_cfg, **kwargs)
        self._logits = None
        if isinstance(self.module, TwoStageDetector) and self.module.roi_head.with_mask:
            head = self.module.roi_head
            self._logits = _MASK_LOGITS.get(type(head).predict_mask)
            if self._logits is None:
                raise ValueError(
                    f'masks of {type(head).__name__} cannot be augmented; only those of '
                    'StandardRoIHead, CascadeRoIHead and HybridTaskCascadeRoIHead'
                )
        elif getattr(self.module, 'with_mask', False) or hasattr(self.module, 'panoptic_head'):
            raise ValueError(
                f'masks of {type(self.module).__name__} cannot be augmented; only those of '
                'two-stage detectors'
            )

    def test_step(self, data: dict) -> list:
        """Predict on images that ``TestTimeAug`` augmented.

        Args:
            data: ``inputs`` and ``data_samples``: lists of augmentations, each a list of images.

        Returns:
            A data sample for each image: boxes and masks in the original image.
        """
        if self._logits is None:
            return super().test_step(data)
        views = list(zip(data['inputs'], data['data_samples'], strict=True))
        batches = [
            self.module.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
            for inputs, samples in views
        ]
        features = [self.module.extract_feat(batch['inputs']) for batch in batches]
        samples = [batch['data_samples'] for batch in batches]
        boxes = [self._boxes(x, views) for x, views in zip(features, samples, strict=True)]
        merged = []
        for i, sample in enumerate(samples[0]):
            metas = [view[i].metainfo for view in samples]
            found = self._merge([view[i] for view in boxes], metas)
            maps = [[level[i : i + 1] for level in x] for x in features]
            found.masks = self._masks(found, maps, metas)
            sample.pred_instances = found
            merged.append(sample)
        return merged

    def _boxes(self, x: Features, samples: list) -> list[InstanceData]:
        """Boxes of one augmentation of all images, at the original scale, still flipped."""
        detector = self.module
        with _without_masks(detector.roi_head):
            proposals = detector.rpn_head.predict(x, samples, rescale=False)
            return detector.roi_head.predict(x, proposals, samples, rescale=True)

    def _merge(self, views: list[InstanceData], metas: list[dict]) -> InstanceData:
        """Merge the boxes of all augmentations of an image by NMS, best first."""
        boxes = [flip_boxes(view.bboxes, meta) for view, meta in zip(views, metas, strict=True)]
        boxes = torch.cat(boxes)
        scores = torch.cat([view.scores for view in views])
        labels = torch.cat([view.labels for view in views])
        if len(boxes):
            rows, kept = batched_nms(boxes, scores, labels, self.tta_cfg['nms'])
            kept = kept[: self.tta_cfg['max_per_img']]
            boxes, scores, labels = rows[: len(kept), :4], rows[: len(kept), 4], labels[kept]
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)

    def _masks(self, found: InstanceData, maps: list[list[Tensor]], metas: list[dict]) -> Tensor:
        """Predict masks (n, H, W) of boxes from the maps of all augmentations of an image."""
        height, width = metas[0]['ori_shape'][:2]
        if not len(found):
            return found.bboxes.new_zeros((0, height, width), dtype=torch.bool)
        total = 0.0
        for x, meta in zip(maps, metas, strict=True):
            scale = found.bboxes.new_tensor(meta['scale_factor']).repeat(2)
            rois = bbox2roi([flip_boxes(found.bboxes, meta) * scale])
            logits = self._logits(self.module.roi_head, x, rois)
            mean = sum(stage.sigmoid() for stage in logits) / len(logits)
            total = total + flip_maps(mean, meta)
        head = self.module.roi_head.mask_head
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        pasted = head.predict_by_feat(
            # logits, because it applies the sigmoid itself
            mask_preds=[torch.logit(total / len(maps), eps=1e-6)],
            results_list=[InstanceData(bboxes=found.bboxes.clone(), labels=found.labels)],
            batch_img_metas=[dict(ori_shape=(height, width), scale_factor=(1.0, 1.0))],
            rcnn_test_cfg=self.module.roi_head.test_cfg,
            rescale=True,
        )
        return pasted[0].masks


def flip_boxes(boxes: Tensor, meta: dict) -> Tensor:
    """Map boxes (n, 4) of an image to its flipped version, or back; both at the original scale.

    Args:
        boxes: Left, top, right, bottom.
        meta: ``img_shape`` (after the augmentation), ``scale_factor`` (w, h), ``flip`` and
            ``flip_direction`` of the augmented image.
    """
    if not meta.get('flip', False):
        return boxes
    axes = _flipped(meta['flip_direction'])
    left, top, right, bottom = boxes.unbind(-1)
    if 3 in axes:
        width = meta['img_shape'][1] / meta['scale_factor'][0]
        left, right = width - right, width - left
    if 2 in axes:
        height = meta['img_shape'][0] / meta['scale_factor'][1]
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], -1)


def flip_maps(maps: Tensor, meta: dict) -> Tensor:
    """Undo the flip of an image on maps (n, C, H, W) of its boxes."""
    return maps.flip(_flipped(meta['flip_direction'])) if meta.get('flip', False) else maps


def _flipped(direction: str) -> list[int]:
    """Axes of (N, C, H, W) that a direction of mmcv's ``RandomFlip`` reverses."""
    return {'horizontal': [3], 'vertical': [2], 'diagonal': [2, 3]}[direction]


@contextlib.contextmanager
def _without_masks(roi_head: nn.Module) -> Iterator[None]:
    """Context in which a head predicts boxes, without masks."""
    mask_head, roi_head.mask_head = roi_head.mask_head, None
    try:
        yield
    finally:
        roi_head.mask_head = mask_head
