# COCO 2017 with boxes, shorter side 640, 672 ... 800 in training.
_base_ = './coco_detection.py'

_base_.train_dataloader.dataset.pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[(1333, side) for side in range(640, 801, 32)],
    keep_ratio=True,
)
