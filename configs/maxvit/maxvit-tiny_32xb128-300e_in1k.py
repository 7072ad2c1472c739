# The official rate of block k of n, counted from 0, is that of the paper times k / n.
_base_ = [
    '../_base_/models/classifier_tanh.py',
    '../_base_/datasets/imagenet_1k_maxvit.py',
    '../_base_/schedules/imagenet_bs4096_adamw_300e_maxvit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='hybrid_mm.MaxViT',
        arch='tiny',
        drop_path_rate=0.2 * 10 / 11,
        norm_outputs=True,
        pooled=True,
        out_indices=(3,),
    ),
    head=dict(in_channels=512, hidden_dim=512),
)
