# As ade20k_640x640.py with the augmentation of Mask2Former: the short edge is one of 16 sizes from
# 320 to 1280, the long one at most 2560; any crop will do; padding is grey (128).
_base_ = './ade20k_640x640.py'

_base_.train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[(2560, 64 * x) for x in range(5, 21)],
    keep_ratio=True,
)
_base_.train_pipeline[3].cat_max_ratio = 1.0
_base_.train_pipeline.insert(
    6, dict(type='Pad', size=(640, 640), pad_val=dict(img=(128, 128, 128), seg=255))
)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
