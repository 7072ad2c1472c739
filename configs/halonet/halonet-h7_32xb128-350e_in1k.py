# Network and image size are the paper's. No source states the recipe: 350 epochs, batch 4096,
# cosine decay, RandAugment, EMA and drop path are from memory; rates of learning and drop path are
# ours.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_600.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.HaloNet',
        arch='h7',
        drop_path_rate=0.3,
        final_conv=True,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)
