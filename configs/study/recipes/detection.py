# The study's detection: RetinaNet on the drawn shapes (hybrid_mm/data/shapes.py) of up to
# 160 x 160, from scratch, on one core. 400 iterations x 4 images = 4 epochs of 400 images.
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/default_runtime_det_iter.py',
    './schedule.py',
]

data_root = 'data/demo'
metainfo = dict(
    classes=('disc', 'ring', 'square', 'triangle', 'star', 'cross', 'crescent', 'heart')
)
width = 48
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(_delete_=True),
    # strides 8 to 32; the last level of CvT, which ends at stride 16, is subsampled
    neck=dict(
        _delete_=True,
        type='FPN',
        in_channels=[],
        out_channels=width,
        start_level=1,
        num_outs=3,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        type='RetinaSepBNHead',
        num_ins=3,
        num_classes=8,
        in_channels=width,
        feat_channels=width,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        # 24 to 152 pixels; the shapes are 24 to 156
        anchor_generator=dict(
            octave_base_scale=3, scales_per_octave=3, ratios=[1.0], strides=[8, 16, 32]
        ),
    ),
    test_cfg=dict(nms_pre=200, max_per_img=30),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),  # for the key scale_factor
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
# no workers: one process is one core
loading = dict(num_workers=0, persistent_workers=False, pin_memory=False, batch_size=4)
train_dataloader = dict(
    **loading,
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
    **loading,
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
    type='CocoMetric', ann_file=data_root + '/annotations/instances_validation.json', metric='bbox'
)
test_evaluator = val_evaluator

train_cfg = dict(val_interval=200)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(interval=50, max_keep_ckpts=1),
)
log_processor = dict(window_size=10)
