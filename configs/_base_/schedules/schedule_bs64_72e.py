# As schedule_bs64_36e.py in 72 epochs: 131,976 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=72)
_base_.param_scheduler[1].update(end=72, milestones=[64, 68])
