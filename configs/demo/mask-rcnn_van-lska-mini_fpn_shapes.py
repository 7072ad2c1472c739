# Mask R-CNN on a small VAN-LSKA, on the embedded data set (hybrid_mm/data/shapes.py).
# `bash tools/demo.sh` draws the data, trains the segmenter, then this, and checks `expected`.
_base_ = ['../_base_/models/mask-rcnn_r50_fpn.py', '../_base_/default_runtime_det.py']

data_root = 'data/demo'
metainfo = dict(
    classes=('disc', 'ring', 'square', 'triangle', 'star', 'cross', 'crescent', 'heart'),
    palette=[
        (230, 60, 50),
        (245, 140, 30),
        (240, 225, 40),
        (70, 185, 75),
        (60, 200, 205),
        (70, 110, 235),
        (150, 80, 210),
        (240, 110, 180),
    ],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),  # for the key scale_factor
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_training.json',
        data_prefix=dict(img='images/training/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    pin_memory=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_validation.json',
        data_prefix=dict(img='images/validation/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + '/annotations/instances_validation.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

# The detector starts from the backbone and neck of the demo's segmenter.
checkpoint = 'work_dirs/demo/segmenter/iter_1000.pth'
width = 48
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch=dict(embed_dims=[32, 64, 128, 160], depths=[1, 1, 2, 1], mlp_ratios=[2, 2, 3, 3]),
        attention='lska',
        kernel_size=11,
        layer_scale=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(
        in_channels=[32, 64, 128, 160],
        out_channels=width,
        num_outs=4,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='neck.'),
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[5], ratios=[1.0], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        # images are small: objects from 56 pixels go to stride 8, from 112 to stride 16; one sample
        # per bin, because RoIAlign takes a third of the time on a CPU
        bbox_roi_extractor=dict(
            out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        # with norms, because the heads are trained from scratch
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=width,
            conv_out_channels=width,
            fc_out_channels=256,
            norm_cfg=dict(type='BN'),
            num_classes=8,
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(
            out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            norm_cfg=dict(type='BN'),
            num_classes=8,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=30)),
)

# 1000 iterations x 4 images / 400 images = 10 epochs
max_iters = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=50,
        end=max_iters,
        T_max=max_iters - 50,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=250, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False, window_size=20)
# What tools/demo.sh must reach on the validation split.
expected = {'coco/bbox_mAP': 0.60, 'coco/segm_mAP': 0.55}
randomness = dict(seed=0)
