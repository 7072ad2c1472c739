_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e_layer-decay.py',
    '../_base_/default_runtime_cls.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in22k'
model = dict(
    backbone=dict(
        type='hybrid_mm.RepLKNet',
        arch='31b',
        norm_outputs='last',
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=0.2,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=1024),
    train_cfg=None,
)
train_dataloader = dict(batch_size=32)
