auto_scale_lr = dict(base_batch_size=16, enable=False)
backbone = dict(
    arch=dict(
        depths=[
            1,
            1,
            1,
            1,
        ],
        embed_dims=[
            8,
            8,
            16,
            16,
        ],
        mlp_ratios=[
            2,
            2,
            2,
            2,
        ],
    ),
    drop_path_rate=0.0,
    norm_cfg=dict(type='BN'),
    type='hybrid_mm.VAN',
)
data = dict(
    data_root='/tmp/pytest-of-root/pytest-1564/ade0',
    img_suffix='.png',
    metainfo=dict(
        classes=(
            'square',
            'disc',
            'bar',
        ),
        palette=[
            [
                255,
                0,
                0,
            ],
            [
                0,
                255,
                0,
            ],
            [
                0,
                0,
                255,
            ],
        ],
    ),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(reduce_zero_label=True, type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ],
    reduce_zero_label=True,
    seg_map_suffix='.png',
    type='BaseSegDataset',
)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=2, type='hybrid_mm.AtomicCheckpointHook'),
    logger=dict(interval=1, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(
        draw=True, interval=99, show=False, type='SegVisualizationHook', wait_time=2
    ),
)
default_scope = 'mmseg'
env_cfg = dict(
    dist_cfg=dict(backend='nccl'), mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)
)
launcher = 'none'
load_from = '/tmp/pytest-of-root/pytest-1564/runs0/seg/iter_2.pth'
log_processor = dict(by_epoch=False, window_size=1)
model = dict(
    backbone=dict(
        arch=dict(
            depths=[
                1,
                1,
                1,
                1,
            ],
            embed_dims=[
                8,
                8,
                16,
                16,
            ],
            mlp_ratios=[
                2,
                2,
                2,
                2,
            ],
        ),
        drop_path_rate=0.0,
        norm_cfg=dict(type='BN'),
        type='hybrid_mm.VAN',
    ),
    data_preprocessor=dict(
        mean=[
            0.0,
            0.0,
            0.0,
        ],
        pad_val=0,
        seg_pad_val=255,
        size=(
            64,
            64,
        ),
        std=[
            255.0,
            255.0,
            255.0,
        ],
        type='SegDataPreProcessor',
    ),
    decode_head=dict(
        align_corners=False,
        channels=16,
        dropout_ratio=0,
        feature_strides=[
            4,
            8,
            16,
            32,
        ],
        in_channels=[
            16,
            16,
            16,
            16,
        ],
        in_index=[
            0,
            1,
            2,
            3,
        ],
        loss_decode=dict(type='CrossEntropyLoss'),
        norm_cfg=dict(type='SyncBN'),
        num_classes=3,
        type='FPNHead',
    ),
    neck=dict(
        in_channels=[
            8,
            8,
            16,
            16,
        ],
        num_outs=4,
        out_channels=16,
        type='FPN',
    ),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='EncoderDecoder',
)
optim_wrapper = dict(optimizer=dict(lr=0.01, momentum=0.9, type='SGD'), type='OptimWrapper')
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(reduce_zero_label=True, type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        dataset=dict(
            data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
            data_root='/tmp/pytest-of-root/pytest-1564/test_label_maps_of_images_with0/ade',
            img_suffix='.png',
            metainfo=dict(
                classes=(
                    'square',
                    'disc',
                    'bar',
                ),
                palette=[
                    [
                        255,
                        0,
                        0,
                    ],
                    [
                        0,
                        255,
                        0,
                    ],
                    [
                        0,
                        0,
                        255,
                    ],
                ],
            ),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(reduce_zero_label=True, type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
            reduce_zero_label=True,
            seg_map_suffix='.png',
            type='BaseSegDataset',
        ),
        skip_bad_samples=0,
        type='hybrid_mm.CheckedDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = dict(
    iou_metrics=[
        'mIoU',
    ],
    type='IoUMetric',
)
train_cfg = dict(max_iters=2, type='IterBasedTrainLoop', val_interval=100)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        dataset=dict(
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            data_root='/tmp/pytest-of-root/pytest-1564/ade0',
            img_suffix='.png',
            metainfo=dict(
                classes=(
                    'square',
                    'disc',
                    'bar',
                ),
                palette=[
                    [
                        255,
                        0,
                        0,
                    ],
                    [
                        0,
                        255,
                        0,
                    ],
                    [
                        0,
                        0,
                        255,
                    ],
                ],
            ),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(reduce_zero_label=True, type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
            reduce_zero_label=True,
            seg_map_suffix='.png',
            type='BaseSegDataset',
        ),
        skip_bad_samples=0,
        type='hybrid_mm.CheckedDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=True, type='DefaultSampler'),
)
tta_model = dict(type='SegTTAModel')
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        dataset=dict(
            data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
            data_root='/tmp/pytest-of-root/pytest-1564/ade0',
            img_suffix='.png',
            metainfo=dict(
                classes=(
                    'square',
                    'disc',
                    'bar',
                ),
                palette=[
                    [
                        255,
                        0,
                        0,
                    ],
                    [
                        0,
                        255,
                        0,
                    ],
                    [
                        0,
                        0,
                        255,
                    ],
                ],
            ),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(reduce_zero_label=True, type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
            reduce_zero_label=True,
            seg_map_suffix='.png',
            type='BaseSegDataset',
        ),
        skip_bad_samples=0,
        type='hybrid_mm.CheckedDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
val_evaluator = dict(
    iou_metrics=[
        'mIoU',
    ],
    type='IoUMetric',
)
visualizer = dict(
    name='visualizer',
    save_dir='seen',
    type='SegLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ],
)
work_dir = '/tmp/pytest-of-root/pytest-1564/test_label_maps_of_images_with0/w'
