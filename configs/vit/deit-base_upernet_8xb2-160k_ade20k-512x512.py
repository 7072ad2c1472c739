# Weights decay in MMSegmentation's norms too: its key 'norm' does not fit their names (ln1, ln2).
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
        pretrain_img_size=512,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://deit-base_in1k'),
    ),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768, in_index=3),
)
flat = dict(decay_mult=0.0)
_base_.optim_wrapper.paramwise_cfg.custom_keys = {'stem.position': flat, 'class_token': flat}
_base_.param_scheduler[1].begin = 1500  # MMSegmentation's
train_dataloader = dict(batch_size=2)
