# Our recipe; what does not decay is that of the authors' fine-tuning.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_swin.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://qna-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.QnAViT',
        arch='tiny',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys.update(
    {key: dict(decay_mult=0.0) for key in ('attn.scale', 'attn.query')}
)
train_dataloader = dict(batch_size=2)
