# AdamW for detectors with the recipe of MViTv2: 36 epochs in batches of 64, steps at 7/9 and 25/27
# (28, and 33 for 33.3), 250 iterations of warm-up, no weight decay for norms and relative
# positions.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[28, 33], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.6e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'attn.relative': dict(decay_mult=0.0)}),
)

# 8 GPUs x 8 images; train2017 has 117,266 images with annotations, so an epoch is
# 117,266 / 64 = 1,833 iterations and the schedule 65,988 (the authors: 67,500).
auto_scale_lr = dict(enable=False, base_batch_size=64)
