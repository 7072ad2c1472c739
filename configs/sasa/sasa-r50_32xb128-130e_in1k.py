# Appendix A.2: batch norm and weights are averaged at 0.9999. It states neither weight decay nor
# augmentation nor label smoothing: ours.
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
        norm_cfg=dict(type='SyncBN', momentum=0.0001),
    )
)
