# As schedule_bs64_36e.py in 12 epochs: 21,996 iterations.
_base_ = './schedule_bs64_36e.py'

train_cfg = dict(max_epochs=12)
_base_.param_scheduler[1].update(end=12, milestones=[10, 11])
