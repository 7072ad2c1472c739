# As cityscapes.py with the augmentation of Mask2Former: the short edge is one of 16 sizes from 512
# to 2048, the long one at most 4096; any crop will do.
_base_ = './cityscapes.py'

_base_.train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[(4096, int(102.4 * x)) for x in range(5, 21)],
    keep_ratio=True,
)
_base_.train_pipeline[3].cat_max_ratio = 1.0
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
