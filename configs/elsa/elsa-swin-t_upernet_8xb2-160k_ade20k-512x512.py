# Tables of relative positions decay: the published exception names none of the parameters.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_swin.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://elsa-swin-t_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ELSASwin',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys.pop('relative_bias')
train_dataloader = dict(batch_size=2)
