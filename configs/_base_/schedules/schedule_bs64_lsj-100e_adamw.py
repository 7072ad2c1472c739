# AdamW for detectors with the recipe of ViTDet: 100 epochs of 118,000 images in batches of 64 =
# 184,375 iterations, steps at 8/9 and 26/27, 250 iterations of warm-up, half precision. No weight
# decay for absolute positions and the norms of the backbone; detectron2 does not count its layer
# norms of maps, in neck and heads, among the norms.
max_iters = 184375
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
        milestones=[163889, 177546],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'neck': dict(decay_mult=1.0),
            'roi_head': dict(decay_mult=1.0),
        },
    ),
)

# 8 GPUs x 8 images
auto_scale_lr = dict(enable=False, base_batch_size=64)
