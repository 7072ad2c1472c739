# ADE20K whose test images are, after the resize, stretched to the next multiples of 32 ("aligned
# resize" of PVT, VAN and others).
_base_ = './ade20k.py'

_base_.test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))
_base_.tta_pipeline[1].transforms = [
    _base_.tta_pipeline[1].transforms[0],
    [dict(type='ResizeToMultiple', size_divisor=32)],
    *_base_.tta_pipeline[1].transforms[1:],
]
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
