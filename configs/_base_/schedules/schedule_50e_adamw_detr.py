# AdamW for DETR in 50 epochs as PVT's authors train it: a step at 33, no warm-up, a tenth of the
# rate for the backbone, weight decay on every parameter, gradients clipped at norm 0.1.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=50, by_epoch=True, milestones=[33], gamma=0.1)
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.0001),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)

# 8 GPUs x 2 images; 117,266 / 16 = 7,330 iterations an epoch, 366,500 in all
auto_scale_lr = dict(enable=False, base_batch_size=16)
