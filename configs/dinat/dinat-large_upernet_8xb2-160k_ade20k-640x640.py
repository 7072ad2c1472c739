# Crops of 640, as name and dilations of the published file say, although it inherits 512. In fp32.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/schedules/schedule_160k_adamw_swin.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://dinat-large_in22k'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='large',
        dilations='ade20k-640',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
train_dataloader = dict(batch_size=2)
