# The rate is 0.00025 for each GPU of 256 images, times the number of GPUs; warm-up from 1e-6.
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
_base_.param_scheduler[0].start_factor = 1e-6 / 0.002
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=0.002))
train_dataloader = dict(batch_size=256)
auto_scale_lr = dict(base_batch_size=2048)
