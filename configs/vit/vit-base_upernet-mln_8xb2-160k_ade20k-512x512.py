# 8 GPUs x 2 crops
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ViT',
        arch='base',
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-base_in21k.pth'),
    ),
    neck=dict(
        type='MultiLevelNeck', in_channels=[768] * 4, out_channels=768, scales=[4, 2, 1, 0.5]
    ),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768, in_index=3),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'stem.position': dict(decay_mult=0.0), 'class_token': dict(decay_mult=0.0)}
    )
)
train_dataloader = dict(batch_size=2)
