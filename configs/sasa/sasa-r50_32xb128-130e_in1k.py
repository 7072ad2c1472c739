# From memory of the paper; not verified: 130 epochs, 4096 images, rate 1.6, Nesterov momentum,
# warm-up of 10 epochs, cosine decay, averaged weights, label smoothing.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs4096_sgd_130e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.SASAResNet',
        arch='r50',
        stem='attention',
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)
