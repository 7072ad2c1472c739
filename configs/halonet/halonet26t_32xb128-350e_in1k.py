# timm trained it with its recipe "a1h" (LAMB, stronger regularisation than "A1"), whose numbers are
# not published: this is the recipe of HaloNet-H0. It is tested at 95 % of the image, as in timm.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_256.py',
    '../_base_/schedules/imagenet_bs4096_sgd_350e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.HaloNet', arch='halonet26t', out_indices=(3,), norm_cfg=dict(type='SyncBN')
    )
)

_base_.val_dataloader.dataset.pipeline[1].scale = 269
_base_.test_dataloader.dataset.pipeline[1].scale = 269
