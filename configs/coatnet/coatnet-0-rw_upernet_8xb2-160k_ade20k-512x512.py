# Our recipe, after that of Swin; the paper has no such experiment. 8 GPUs x 2 crops
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.CoAtNet',
        arch='0-rw',
        img_size=512,
        drop_path_rate=0.2,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://coatnet-0-rw_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(relative_bias=dict(decay_mult=0.0))))
train_dataloader = dict(batch_size=2)
