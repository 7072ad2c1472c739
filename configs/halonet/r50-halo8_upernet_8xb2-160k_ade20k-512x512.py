# Not in the paper: the recipe that this project uses for all backbones.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://r50-halo8_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.HaloNet',
        arch='r50-se-b8',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)

train_dataloader = dict(batch_size=2)
