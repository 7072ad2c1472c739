# The script of the official code. Its label smoothing spreads 0.1 over the other 999 classes.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs128_sgd_90e_cosine.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='hybrid_mm.ACmixResNet', arch='r50', out_indices=(3,)),
    head=dict(loss=dict(label_smooth_val=0.1 * 1000 / 999)),
)
train_dataloader = dict(batch_size=16)
