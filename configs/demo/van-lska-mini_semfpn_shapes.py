# Semantic FPN on a small VAN-LSKA, from scratch, on the embedded data (hybrid_mm/data/shapes.py).
# `bash tools/demo.sh` draws the data, trains this and the detector, and checks `expected`.
_base_ = ['../_base_/models/fpn_r50.py', '../_base_/default_runtime_seg.py']

data_root = 'data/demo'
metainfo = dict(
    classes=(
        'background',
        'disc',
        'ring',
        'square',
        'triangle',
        'star',
        'cross',
        'crescent',
        'heart',
    ),
    palette=[
        (70, 70, 75),
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
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    metainfo=metainfo,
    data_root=data_root,
    img_suffix='.png',
    seg_map_suffix='.png',
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch=dict(embed_dims=[32, 64, 128, 160], depths=[1, 1, 2, 1], mlp_ratios=[2, 2, 3, 3]),
        attention='lska',
        kernel_size=11,
        layer_scale=1.0,
    ),
    neck=dict(in_channels=[32, 64, 128, 160], out_channels=48, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[48, 48, 48, 48], channels=48, num_classes=9, norm_cfg=norm_cfg),
)

# 1000 iterations x 4 images / 400 images = 10 epochs
max_iters = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=60),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=60,
        end=max_iters,
        T_max=max_iters - 60,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=500, max_keep_ckpts=1))
log_processor = dict(window_size=20)
# What tools/demo.sh must reach on the validation split.
expected = {'mIoU': 80.0}
randomness = dict(seed=0)
