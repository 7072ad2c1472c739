_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_nat.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='hybrid_mm.DiNAT', arch='mini', drop_path_rate=0.2, out_indices=(3,)),
    head=dict(in_channels=512),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
