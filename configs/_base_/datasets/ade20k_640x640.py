# ADE20K with crops of 640 x 640 and test images of (2560, 640).
_base_ = './ade20k.py'
crop_size = (640, 640)

_base_.train_pipeline[2].scale = (2560, 640)
_base_.train_pipeline[3].crop_size = crop_size
_base_.test_pipeline[1].scale = (2560, 640)
_base_.tta_pipeline[1].transforms = [
    [
        dict(type='Resize', scale=(int(2560 * r), int(640 * r)), keep_ratio=True)
        for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ],
    *_base_.tta_pipeline[1].transforms[1:],
]
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
