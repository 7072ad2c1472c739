# NAT without a pyramid: windows of 7 x 7 on tokens of 16 pixels.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_nat.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.DiNATs',
        arch=dict(embed_dim=384, depths=(12,), heads=(12,)),
        dilations=[[1]],
        patch_size=16,
        drop_path_rate=0.1,
        out_indices=(0,),
    ),
    head=dict(in_channels=384),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
