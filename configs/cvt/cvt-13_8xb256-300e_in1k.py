# The rate is 0.00025 for each GPU of 256 images; it is our reading that the official code
# multiplies it by the number of GPUs.
# 8 GPUs x 256 images; 1,281,167 / 2,048 = 626 iterations an epoch
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_deit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.CvT', arch='13', pooled=True, drop_path_rate=0.1, out_indices=(2,)
    ),
    neck=None,
    head=dict(in_channels=384),
)
optim_wrapper = dict(optimizer=dict(lr=0.002))
train_dataloader = dict(batch_size=256)
auto_scale_lr = dict(base_batch_size=2048)
