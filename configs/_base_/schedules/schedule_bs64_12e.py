# As schedule_bs64_36e.py in 12 epochs: 21,996 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[10, 11],
        gamma=0.1)
]
