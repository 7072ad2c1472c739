# The study's segmentation: Semantic FPN on CamVid at 240 x 320, from scratch, on one core.
# 400 iterations x 4 crops = 4.4 epochs of 367 images; all of val four times.
_base_ = [
    '../../_base_/models/fpn_r50.py',
    '../../_base_/datasets/camvid.py',
    '../../_base_/default_runtime_seg.py',
    './schedule.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
width = 48
model = dict(
    # 240 x 320 is padded to 256 x 320: no map has an odd number of rows, which some networks round
    # up and others down, and windows of 8 x 10 fill every map
    data_preprocessor=dict(
        size=None,
        size_divisor=32,
        seg_pad_val={{_base_.ignore_index}},
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(_delete_=True),
    neck=dict(out_channels=width, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=width,
        num_classes=11,
        ignore_index={{_base_.ignore_index}},
        norm_cfg=norm_cfg,
        # square roots of the classes' median-frequency weights (they cover 0.3% to 33%)
        loss_decode=dict(
            class_weight=[0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 2.0, 0.87, 2.65, 3.92]
        ),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(320, 240), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_size={{_base_.crop_size}},
        cat_max_ratio=0.75,
        ignore_index={{_base_.ignore_index}},
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations'),  # after the resize: compared at the size of the annotations
    dict(type='PackSegInputs'),
]
# no workers: one process is one core, and a resumed training sees the same crops
loading = dict(num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader = dict(**loading, batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**loading, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(val_interval=100)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50, max_keep_ckpts=1))
log_processor = dict(window_size=10)
