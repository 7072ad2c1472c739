# SGD with the recipe of RetinaNet in TensorFlow's model garden: 72 epochs, rate 0.32 for 256
# images, 500 iterations of warm-up from 0.0067, steps at 57 and 67; bfloat16. The weights of neck
# and head decay by 1e-4, those of MaxViT do not.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=72, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.0067 / 0.32, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=72, by_epoch=True, milestones=[57, 67], gamma=0.1),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=0.32, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(backbone=dict(decay_mult=0.0)),
        bypass_duplicate=True,  # all levels have the convolutions of one
    ),
)

# 32 GPUs x 8 images; 117,266 / 256 = 459 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=256)
