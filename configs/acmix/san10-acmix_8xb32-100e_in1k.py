# SAN's recipe with patchwise attention and ACmix's convolution path, which the paper of ACmix
# trains; its code has none of SAN. Labels are smoothed over the 999 other classes.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs256_sgd_100e_cosine.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.SAN', arch='san10', attention='patchwise', acmix=True, out_indices=(3,)
    ),
    head=dict(loss=dict(label_smooth_val=0.1 * 1000 / 999)),
)
train_dataloader = dict(batch_size=32)
