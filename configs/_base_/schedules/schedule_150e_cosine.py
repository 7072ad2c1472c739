# SGD from scratch: 150 epochs, linear warm-up, cosine decay, no weight decay for norms.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=150, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        end=150,
        T_max=150,
        convert_to_iter_based=True,
    ),
]
# bypass_duplicate: the heads of all levels share their convolutions
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.08, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0, bypass_duplicate=True),
)

# 8 GPUs x 8 images; train2017 has 117,266 images with annotations, so an epoch is
# 117,266 / 64 = 1,833 iterations and the schedule 274,950.
auto_scale_lr = dict(enable=False, base_batch_size=64)
