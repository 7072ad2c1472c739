# The detectors start from these weights. No source states their recipe: that of HaloNet-H0.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_224.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.HaloNet',
        arch='r50-se-b8',
        drop_path_rate=0.1,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)
