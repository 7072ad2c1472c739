# SGD for ImageNet-1k: 100 epochs from 0.128, linear warm-up in 5, steps at 30, 60, 80 and 90,
# weight decay on everything but norms (EA-AA-ResNet).
_base_ = './imagenet_bs256_sgd_40e.py'

train_cfg = dict(max_epochs=100)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[30, 60, 80, 90], gamma=0.1
    ),
]
optim_wrapper = dict(optimizer=dict(lr=0.128), paramwise_cfg=dict(norm_decay_mult=0.0))

# 8 GPUs x 32 images; 1,281,167 / 256 = 5,005 iterations an epoch, 500,500 in all
