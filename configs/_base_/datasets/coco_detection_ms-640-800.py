# COCO 2017 with boxes, shorter side 640 or 800 in training.
_base_ = './coco_detection.py'

_base_.train_dataloader.dataset.pipeline[2] = dict(
    type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)], keep_ratio=True
)
