# The network is that of the paper's table 13. No source states the rest: image size, 350 epochs,
# RandAugment, label smoothing, EMA and drop path are from memory of it, both rates are ours.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_224.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.BoTNet',
        arch='s1-59',
        shortcut_act=True,
        canvas_size=(224, 224),
        drop_path_rate=0.1,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)
