# Our recipe; the paper has none. Three levels, as CvT ends at stride 16. 8 GPUs x 2 crops
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://cvt-13_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.CvT',
        arch='13',
        drop_path_rate=0.1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[64, 192, 384], in_index=[0, 1, 2]),
    auxiliary_head=dict(in_channels=192, in_index=1),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(class_token=dict(decay_mult=0.0))))
train_dataloader = dict(batch_size=2)
