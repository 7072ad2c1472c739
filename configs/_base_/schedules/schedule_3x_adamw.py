# AdamW, 36 epochs (263,880 iterations), steps at 27 and 33, weight decay on every parameter.
_base_ = './schedule_1x_adamw.py'

train_cfg = dict(max_epochs=36)
_base_.param_scheduler[1].update(end=36, milestones=[27, 33])
