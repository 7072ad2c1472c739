# Positions of the flattened map, bound to 224 x 224; the last stage keeps its resolution.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs128_sgd_95e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.LESAResNet',
        arch='r50',
        strides=(1, 2, 2, 1),
        positions='flat',
        out_indices=(3,),
    ),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=1.0)),
)
train_dataloader = dict(batch_size=32)
