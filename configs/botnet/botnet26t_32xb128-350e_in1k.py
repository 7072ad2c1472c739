# timm trained it with its recipe "c1" (SGD with adaptive clipping), whose numbers are not
# published: this is the recipe of the paper's BoT-T5. It is tested at 95 % of the image, as in
# timm.
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

_base_.val_dataloader.dataset.pipeline[1].scale = 269
_base_.test_dataloader.dataset.pipeline[1].scale = 269
