# Swin's recipe: ACmix's code has no segmenters. No weight decay for the mixing rates.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://swin-t-acmix_in1k'
no_decay = dict(decay_mult=0.0)
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ACmixSwin',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(relative_bias=no_decay, rate=no_decay)))
train_dataloader = dict(batch_size=2)
