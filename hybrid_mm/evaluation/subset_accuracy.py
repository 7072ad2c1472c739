"""Top-1 accuracy among a subset of a classifier's classes."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from hybrid_mm.registry import METRICS


@METRICS.register_module()
class SubsetAccuracy(BaseMetric):
    """Top-1 accuracy in per cent, restricted to a subset of the classes of a classifier.

    As in the evaluations of ImageNet-A and -R, the largest score is taken over the classes of the
    data set, ``valid_labels`` of its ``metainfo`` (see :class:`hybrid_mm.data.ImageNetA`).

    Args:
        valid_labels: Classes to choose among; by default those of the data set, else all.
        **kwargs: See MMEngine's ``BaseMetric``.

    Raises:
        ValueError: A label is not in ``valid_labels``, or one of these exceeds the classes of the
            model.
    """

    default_prefix = 'accuracy'

    def __init__(self, valid_labels: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.valid_labels = valid_labels

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Record for each image whether its label has the largest score."""
        valid = self.valid_labels or (self.dataset_meta or {}).get('valid_labels')
        for sample in data_samples:
            scores, label = sample['pred_score'], int(sample['gt_label'])
            classes = torch.arange(len(scores)) if valid is None else torch.tensor(valid)
            if label not in classes.tolist() or classes.max() >= len(scores):
                raise ValueError(
                    f'SubsetAccuracy: label {label} and valid_labels up to {int(classes.max())} do '
                    f'not fit each other and the {len(scores)} classes of the model'
                )
            best = classes[scores[classes.to(scores.device)].argmax().cpu()]
            self.results.append(int(best) == label)

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        """Percentage of correct images, as ``top1``."""
        return dict(top1=100 * sum(results) / len(results))
