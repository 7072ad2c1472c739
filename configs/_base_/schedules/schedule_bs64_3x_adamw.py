# AdamW for detectors with the recipe of MViTv2 in detectron2: "3x", 67,500 iterations of 64 images
# (36.8 epochs of the 117,266 images with annotations), steps at 7/9 and 25/27, 250 iterations of
# warm-up, no weight decay for norms and relative positions, half precision.
max_iters = 67500
interval = 5000
# every 5,000 iterations, and once at the end
train_cfg = dict(
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=interval,
    dynamic_intervals=[(max_iters // interval * interval + 1, max_iters)],
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[52500, 62500],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1.6e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'attn.relative': dict(decay_mult=0.0)}),
)

# 8 GPUs x 8 images
auto_scale_lr = dict(enable=False, base_batch_size=64)
