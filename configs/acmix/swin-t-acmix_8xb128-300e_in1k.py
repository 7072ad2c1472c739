# The authors' recipe, which is Swin's but for the rates of drop path.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_swin.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='hybrid_mm.ACmixSwin', arch='tiny', drop_path_rate=0.2, out_indices=(3,)),
    head=dict(in_channels=768),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
