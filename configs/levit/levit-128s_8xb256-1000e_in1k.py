# The paper's recipe without its teacher: it distils from a RegNetY-16GF, with a second head that is
# left out here. That the rate, 0.0005, is for 512 images is our reading. 8 GPUs x 256 images;
# 1,281,167 / 2,048 = 626 iterations an epoch
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_deit.py',
    '../_base_/default_runtime_cls.py'
]

model = dict(
    backbone=dict(
        type='hybrid_mm.LeViT',
        arch='128s',
        pooled=True,
        out_indices=(4, )),
    neck=None,
    head=dict(type='LeViTClsHead', distillation=False, in_channels=384))
optim_wrapper = dict(
    optimizer=dict(lr=0.002, weight_decay=0.025),
    clip_grad=dict(_delete_=True, max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(distance_bias=dict(decay_mult=0.0))))
_base_.param_scheduler[1].end = 1000
train_cfg = dict(max_epochs=1000)
train_dataloader = dict(batch_size=256)
auto_scale_lr = dict(base_batch_size=2048)
