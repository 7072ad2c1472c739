# distribuuuu's botnet50 and its recipe; other depths and kinds of positions have the same. Stride 1
# in the last stage; the detectors load these weights into networks of stride 2.
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
        shortcut_act=True,
        canvas_size=(224, 224),
        out_indices=(3,),
    ),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
)

train_dataloader = dict(batch_size=32, drop_last=True)
