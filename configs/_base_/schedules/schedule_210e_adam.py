# Adam, 210 epochs, steps at 170 and 200, no weight decay.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=210, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=210, by_epoch=True, milestones=[170, 200], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.0)
)

# 8 GPUs x 8 persons; train2017 has 149,813 persons with keypoints.
auto_scale_lr = dict(enable=False, base_batch_size=64)
