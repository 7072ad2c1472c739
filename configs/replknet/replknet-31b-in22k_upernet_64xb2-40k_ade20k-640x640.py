_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k_512_crop-640x640.py',
    '../_base_/schedules/schedule_40k_adamw_warmup.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in22k'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.3,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
model['test_cfg'] = dict(mode='slide', crop_size=(640, 640), stride=(426, 426))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=128)  # 64 GPUs x 2 crops
