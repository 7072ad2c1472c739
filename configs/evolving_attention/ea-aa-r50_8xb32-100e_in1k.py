# The recipe of the authors' code: means are subtracted, nothing is divided; batch norms with
# momentum 0.003.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs256_sgd_100e_step.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.68, 116.78, 103.94], std=[1.0, 1.0, 1.0]),
    backbone=dict(
        type='hybrid_mm.EAAAResNet',
        arch='r50',
        out_indices=(3,),
        norm_cfg=dict(type='BN', momentum=0.003),
    ),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=1.0)),
)
_base_.train_pipeline[1].crop_ratio_range = (0.05, 1.0)
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=_base_.train_pipeline))
