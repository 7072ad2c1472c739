# timm trained it with its recipe "ra3" (RMSProp, steps, EMA); this is the recipe of HaloNet-H0.
# Input in [-1, 1], test at 94 % of the image and bicubic interpolation are those of timm's weights.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        type='hybrid_mm.HaloNet',
        arch='haloregnetz_b',
        final_conv=True,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    ),
    head=dict(in_channels=1536),
)

_base_.val_dataloader.dataset.pipeline[1].scale = 238
_base_.test_dataloader.dataset.pipeline[1].scale = 238
