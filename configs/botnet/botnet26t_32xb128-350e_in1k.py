# The recipe of timm's weights is unknown to us; this one is that of the paper's large models.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_256.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.BoTNet',
        arch='botnet26t',
        canvas_size=(256, 256),
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)
