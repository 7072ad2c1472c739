# The recipe of distribuuuu's botnet50 (there with shortcut_act=True), with label smoothing. Stride
# 1 in the last stage; the detectors load these weights into networks of stride 2.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs256_sgd_100e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.BoTNet',
        arch='bot50',
        strides=(1, 2, 2, 1),
        canvas_size=(224, 224),
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
    )
)

train_dataloader = dict(batch_size=32)
