# Not in the paper: the recipe that this project uses for all backbones.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://lesa-r50-axial_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.LESAResNet',
        arch='r50',
        canvas_size=(512, 512),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
norms = dict(norm=dict(decay_mult=0.0))
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=norms))
train_dataloader = dict(batch_size=2)
