# Not in the paper: the recipe that this project uses for ResNets.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs1024_sgd_100e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(type='hybrid_mm.QuadraticAttentionResNet', arch='r50', out_indices=(3,)))

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'.centers': dict(decay_mult=0.0), '.spreads': dict(decay_mult=0.0)}
    )
)
