# 8 GPUs x 2 crops
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/schedules/schedule_160k_adamw_convnext.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://hornet-large_in22k'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.HorNet',
        arch='large',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(mode='slide', crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8, num_layers=12))
train_dataloader = dict(batch_size=2)
