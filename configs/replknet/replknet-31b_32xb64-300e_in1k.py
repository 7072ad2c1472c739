_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs2048_adamw_300e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.RepLKNet',
        arch='31b',
        norm_outputs='last',
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=0.5,
        out_indices=(3,),
    ),
    head=dict(in_channels=1024),
)
train_dataloader = dict(batch_size=64)
