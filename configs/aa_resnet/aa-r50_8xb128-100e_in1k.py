# No source states the recipe: 100 epochs, 1024 images, warm-up over 5 % of them and cosine decay
# are from memory of the paper; rate and weight decay are those usual for ResNets.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs1024_sgd_100e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.AAResNet', arch='r50', out_indices=(3,), norm_cfg=dict(type='SyncBN')
    )
)
