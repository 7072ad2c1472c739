# SGD with the recipe of the TPU code base (tensorflow/tpu): 36 epochs, rate 0.1 for 64 images,
# weight decay 4e-5; steps at 8/9 and 17/18.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[32, 34], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.00004)
)

# 8 GPUs x 8 images; train2017 has 117,266 images with annotations, so an epoch is
# 117,266 / 64 = 1,833 iterations and the schedule 65,988.
auto_scale_lr = dict(enable=False, base_batch_size=64)
