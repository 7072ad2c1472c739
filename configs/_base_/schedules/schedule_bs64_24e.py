# As schedule_bs64_36e.py in 24 epochs: 43,992 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=24,
        by_epoch=True,
        milestones=[21, 23],
        gamma=0.1)
]
