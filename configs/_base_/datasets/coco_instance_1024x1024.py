# COCO 2017 with boxes and instance masks on a canvas of 1024 x 1024: for training the image is
# fitted into 0.8 to 1.25 times the canvas, then cropped or padded (with the mean of the images);
# for testing it is fitted into the canvas.
_base_ = './coco_instance.py'

canvas = (1024, 1024)
pad = dict(type='Pad', size=canvas, pad_val=dict(img=(104, 116, 124), masks=0))
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=canvas, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_size=canvas,
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    # drops objects that the crop removed: a box without area has no finite regression target
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    pad,
    dict(type='PackDetInputs'),
]
_base_.test_pipeline[1].scale = canvas
_base_.test_pipeline.insert(2, pad)
_base_.tta_pipeline[1].transforms = [
    [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (832, 1024, 1280)],
    *_base_.tta_pipeline[1].transforms[1:],
]
train_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
