# As schedule_1x_adamw.py with the warm-up and clipping of MMRotate's schedule_1x.py.
_base_ = './schedule_1x_adamw.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))

# 8 GPUs x 1 image
auto_scale_lr = dict(base_batch_size=8)
