# As schedule_bs64_36e.py in 24 epochs: 43,992 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=24)
_base_.param_scheduler[1].update(end=24, milestones=[21, 23])
