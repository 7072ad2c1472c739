# COCO 2017 panoptic with large-scale jittering: ratio 0.1 to 2.0 of 1024 x 1024, random crop,
# padded with grey (128) to 1024 x 1024, as Mask2Former is trained.
_base_ = './coco_panoptic.py'

train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True, backend_args={{_base_.backend_args}}),
    dict(
        type='LoadPanopticAnnotations',
        with_bbox=True,
        with_mask=True,
        with_seg=True,
        backend_args={{_base_.backend_args}},
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_size=(1024, 1024),
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='Pad', size=(1024, 1024), pad_val=dict(img=(128, 128, 128), masks=0, seg=255)),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
