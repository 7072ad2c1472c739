# As schedule_bs64_36e.py in 72 epochs: 131,976 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=72)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=72,
        by_epoch=True,
        milestones=[64, 68],
        gamma=0.1)
]
