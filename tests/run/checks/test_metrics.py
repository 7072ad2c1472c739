"""Metrics by which the best checkpoint is chosen."""

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.metrics import check_save_best

COCO = dict(type='CocoMetric', metric=['bbox', 'segm'])
IOU = dict(type='mmseg.IoUMetric')


def check(metrics, save_best):
    hook = dict(type='CheckpointHook', save_best=save_best)
    check_save_best(Config(dict(default_hooks=dict(checkpoint=hook), val_evaluator=metrics)))


@pytest.mark.parametrize(
    ('metrics', 'good', 'wrong', 'hint'),
    [
        (COCO, ['coco/bbox_mAP', 'coco/segm_mAP_50', 'auto'], 'bbox_mAP', 'coco/bbox_mAP'),
        (COCO | dict(prefix='a'), ['a/bbox_mAP'], 'coco/bbox_mAP', 'a/bbox_mAP'),
        (IOU, ['mIoU', 'aAcc', None], 'mIou', 'mIoU'),
        (IOU | dict(iou_metrics=['mFscore']), ['mFscore', 'mPrecision'], 'mIoU', ''),
        ([dict(type='Accuracy', topk=(1, 5))], ['accuracy/top5'], 'accuracy/top2', 'accuracy/top5'),
    ],
)
def test_names_of_the_best_metric(metrics, good, wrong, hint):
    for name in (*good, [name for name in good if name]):
        check(metrics, name)
    with pytest.raises(UserError, match=f'save_best {wrong!r} .* is not one of') as error:
        check(metrics, [*good[:1], wrong])
    assert hint in str(error.value)


def test_what_is_not_known_is_left_to_the_validation():
    for metrics in (COCO | dict(classwise=True), [IOU, dict(type='MyMetric')], None):
        check(metrics, 'anything')
