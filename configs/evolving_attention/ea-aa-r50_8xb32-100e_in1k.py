# The published recipe: 0.128 for 256 images, plain cross-entropy, statistics of batch norm with
# momentum 0.003.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs256_sgd_100e_step.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.EAAAResNet',
        arch='r50',
        out_indices=(3,),
        norm_cfg=dict(type='BN', momentum=0.003),
    ),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=1.0)),
)
train_dataloader = dict(batch_size=32)
