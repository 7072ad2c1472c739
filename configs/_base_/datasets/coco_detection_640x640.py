# COCO 2017 with boxes on a canvas of 640 x 640: for training the longer side is 512 to 768, then
# cropped or padded; for testing 640, then padded (with the mean of the images).
_base_ = './coco_detection.py'

pad = dict(type='Pad', size=(640, 640), pad_val=dict(img=(104, 116, 124)))
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(640, 640), ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(640, 640)),
    dict(type='RandomFlip', prob=0.5),
    pad,
    dict(type='PackDetInputs'),
]
_base_.test_pipeline[1].scale = (640, 640)
_base_.test_pipeline.insert(2, pad)
_base_.tta_pipeline[1].transforms = [
    [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (512, 640, 768)],
    *_base_.tta_pipeline[1].transforms[1:],
]
train_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
