_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_deit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.ViT',
        arch='small',
        final_norm=True,
        pooled=True,
        drop_path_rate=0.1,
        out_indices=(3,),
    ),
    neck=None,
    head=dict(in_channels=384),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
_base_.optim_wrapper.paramwise_cfg.custom_keys['stem.position'] = dict(decay_mult=0.0)
train_dataloader = dict(sampler=dict(type='RepeatAugSampler'))
