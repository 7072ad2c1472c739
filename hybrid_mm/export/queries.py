"""End-to-end graphs of MMDetection's Mask2Former: objects and panoptic maps from queries."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_mm.export.graphs import ExportError, Network, largest_difference
from hybrid_mm.export.segmenters import target_size

__all__ = ['Queries']

_INSTANCE_OFFSET = 1000  # MMDetection's INSTANCE_OFFSET
_CHANGED = 1e-3  # part of the places that may differ where numbers are equal up to rounding


class Queries(Network):
    """Mask2Former: objects with masks of the image, and a panoptic map.

    Outputs are ``boxes`` (N, K, 4) around the ``masks`` (N, K, h, w), ``scores`` (N, K) and
    ``labels`` (N, K), the best first, if the model's ``test_cfg`` has ``instance_on``; and
    ``panoptic_map`` (N, h, w), int32, label + 1000 * number of the object, if it has
    ``panoptic_on``. All are in pixels of the image, or of the optional input ``size``.

    Args:
        model: ``Mask2Former`` of MMDetection.

    Raises:
        ExportError: It is another model, or its ``test_cfg`` asks for something else.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        head, test = model.panoptic_head, dict(model.panoptic_fusion_head.test_cfg)
        if type(head).__name__ != 'Mask2FormerHead':
            raise ExportError(
                f'{type(model).__name__} with {type(head).__name__}: of the models with queries, '
                'Mask2Former has an end-to-end graph; use --backbone-only'
            )
        self.panoptic = bool(test.get('panoptic_on', True))
        self.instances = bool(test.get('instance_on', False))
        if test.get('semantic_on', False) or not (self.panoptic or self.instances):
            raise ExportError(
                'test_cfg of the model has neither instance_on nor panoptic_on, or semantic_on, '
                'which MMDetection does not have'
            )
        names = ('boxes', 'scores', 'labels', 'masks') if self.instances else ()
        self.outputs = (*names, *(('panoptic_map',) if self.panoptic else ()))
        self.model: Any = model
        self.things: int = head.num_things_classes
        self.classes: int = head.num_classes
        self.most = min(int(test.get('max_per_image', 100)), head.num_queries * self.classes)
        self.least_score = float(test.get('object_mask_thr', 0.8))
        self.least_part = float(test.get('iou_thr', 0.8))
        self.filters = bool(test.get('filter_low_score', False))
        self.settings = {'size': torch.zeros(2, dtype=torch.int64)}
        self.properties = {'masks': 'whole image'}

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        found = self.model.panoptic_head(self.model.extract_feat(x), [])
        scores, masks = found[0][-1].softmax(-1), found[1][-1]

        def at_size(maps: Tensor) -> Tensor:
            """Logits (N, n, h, w) as MMDetection resizes them: twice."""
            maps = F.interpolate(maps, x.shape[2:], mode='bilinear', align_corners=False)
            maps = maps[:, :, : size[0], : size[1]]
            target = target_size(maps, settings[0])
            return F.interpolate(maps, target, mode='bilinear', align_corners=False)

        results: tuple[Tensor, ...] = ()
        if self.instances:
            best, places = scores[:, :, :-1].flatten(1).topk(self.most)
            query, label = places // self.classes, places % self.classes
            rows = torch.arange(masks.shape[0], device=x.device)[:, None]
            results += self._objects(best, label, at_size(masks[rows, query]))
        if self.panoptic:
            results += (self._panoptic(scores, at_size(masks)),)
        return results

    def difference(
        self, found: dict[str, Tensor], x: Tensor, size: tuple[int, int], *settings: Tensor
    ) -> float:
        """See :class:`hybrid_mm.export.graphs.Network`.

        Scores are compared by rank. Labels, boxes and pixels may differ in one of a thousand
        places: where scores are equal up to rounding, objects change places, and where a mask is
        undecided, pixels belong to it or not.
        """
        expected = dict(zip(self.outputs, self(x, size, *settings), strict=True))
        places = {k: v for k, v in expected.items() if k != 'scores'}
        worst = largest_difference({k: expected[k] for k in expected if k == 'scores'}, found)
        for name, a in places.items():
            b = found[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                raise ExportError(
                    f'{name} is {b.dtype}, {tuple(b.shape)}, instead of {a.dtype}, {tuple(a.shape)}'
                )
            changed = (a != b).double().mean().item()
            if changed > _CHANGED:
                worst = max(worst, changed)
        return worst

    def _objects(self, scores: Tensor, labels: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        """Objects of the best pairs of query and class, (N, K), with their logits, (N, K, h, w)."""
        inside = logits > 0
        area = inside.sum((2, 3)).to(logits.dtype)
        scores = scores * ((logits.sigmoid() * inside).sum((2, 3)) / (area + 1e-6))
        thing = labels < self.things
        scores, order = torch.where(thing, scores, -1.0).sort(1, descending=True)
        rows = torch.arange(labels.shape[0], device=labels.device)[:, None]
        labels, inside = labels[rows, order], inside[rows, order]
        thing = labels < self.things
        (left, right), (top, bottom) = _extent(inside.any(2)), _extent(inside.any(3))
        boxes = torch.stack((left, top, right, bottom), -1) * thing[..., None]
        return (
            boxes,
            scores.clamp(min=0),
            torch.where(thing, labels, -1),
            inside & thing[..., None, None],
        )

    def _panoptic(self, scores: Tensor, logits: Tensor) -> Tensor:
        """Panoptic map, (N, h, w), of scores (N, Q, classes + 1) and logits (N, Q, h, w)."""
        best, label = scores.max(-1)
        kept = (label != self.classes) & (best > self.least_score)
        masks = logits.sigmoid()
        weighted = torch.where(kept[..., None, None], best[..., None, None] * masks, -1.0)
        winner = weighted.argmax(1)
        queries = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
        own = winner[:, None] == queries
        area = own.sum((2, 3))
        sure = masks >= 0.5
        original = sure.sum((2, 3))
        kept = kept & (area > 0) & (original > 0)
        kept = kept & (area >= self.least_part * original)
        thing = kept & (label < self.things)
        value = label + _INSTANCE_OFFSET * thing.long().cumsum(1) * thing
        value = torch.where(kept, value, self.classes)
        found = value[torch.arange(value.shape[0], device=value.device)[:, None, None], winner]
        if self.filters:
            found = torch.where((own & sure).any(1), found, self.classes)
        return found.to(torch.int32)


def _extent(filled: Tensor) -> tuple[Tensor, Tensor]:
    """First place, and the one after the last, that is true in (..., length); 0 if none is."""
    length = filled.shape[-1]
    places = torch.arange(length, device=filled.device)
    first = torch.where(filled, places, length).amin(-1)
    last = torch.where(filled, places + 1, 0).amax(-1)
    return torch.where(last > 0, first, 0).float(), last.float()
