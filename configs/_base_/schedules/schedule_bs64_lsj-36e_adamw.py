# As schedule_bs64_lsj-100e_adamw.py, 36/100 of it: 36 epochs, 66375 iterations.
_base_ = './schedule_bs64_lsj-100e_adamw.py'

train_cfg = dict(max_iters=66375, dynamic_intervals=[(65001, 66375)])
_base_.param_scheduler[1].update(end=66375, milestones=[59000, 63916])
