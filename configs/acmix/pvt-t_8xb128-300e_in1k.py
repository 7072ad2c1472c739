# PVT's recipe, which is that of DeiT with its repeated augmentation; the class token is classified.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_deit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.PVT', arch='tiny', class_token=True, drop_path_rate=0.1, out_indices=(3,)
    ),
    neck=None,
    head=dict(in_channels=512),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
train_dataloader = dict(sampler=dict(type='RepeatAugSampler', shuffle=True))
