# MMSegmentation's UperNet of DeiT-S, whose norms decay ("norm" is in none of their names there).
_base_ = [
    '../../_base_/models/upernet_r50.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/schedule_160k_adamw.py',
    '../../_base_/default_runtime_seg.py',
]

model = dict(backbone=dict(_delete_=True, drop_path_rate=0.1), auxiliary_head=dict(in_index=3))
_base_.param_scheduler[1].begin = 1500  # MMSegmentation's
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0)),
    )
)
