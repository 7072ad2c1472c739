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
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/deit-base_in1k.pth'),
    ),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768, in_index=3),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys.update(
    {'stem.position': dict(decay_mult=0.0), 'class_token': dict(decay_mult=0.0)}
)
train_dataloader = dict(batch_size=2)
