# As schedule_1x_adamw_convnext.py in 36 epochs, steps at 27 and 33.
_base_ = './schedule_1x_adamw_convnext.py'

train_cfg = dict(max_epochs=36)
_base_.param_scheduler[1].update(end=36, milestones=[27, 33])
