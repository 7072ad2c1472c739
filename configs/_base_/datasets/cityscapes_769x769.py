# Cityscapes with crops of 769 x 769 from images that are one pixel wider and higher, as for heads
# that align the corners of their maps.
_base_ = './cityscapes.py'
crop_size = (769, 769)

_base_.train_pipeline[2].scale = (2049, 1025)
_base_.train_pipeline[3].crop_size = crop_size
_base_.test_pipeline[1].scale = (2049, 1025)
_base_.tta_pipeline[1].transforms = [
    [
        dict(type='Resize', scale=(int(2049 * r), int(1025 * r)), keep_ratio=True)
        for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ],
    *_base_.tta_pipeline[1].transforms[1:],
]
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
