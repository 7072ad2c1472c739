_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet22k.py',
    '../_base_/schedules/imagenet_bs4096_adamw_90e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(num_classes=21841),
    backbone=dict(
        type='hybrid_mm.RepLKNet',
        arch='31b',
        norm_outputs='last',
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=0.1,
        out_indices=(3,),
    ),
    head=dict(in_channels=1024, num_classes=21841),
)
train_dataloader = dict(batch_size=32)
