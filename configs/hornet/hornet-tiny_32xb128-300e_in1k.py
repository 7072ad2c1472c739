_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs4096_adamw_300e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.HorNet', arch='tiny', drop_path_rate=0.2, pooled=True, out_indices=(3,)
    ),
    head=dict(in_channels=512),
)
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=100.0, norm_type=2))
