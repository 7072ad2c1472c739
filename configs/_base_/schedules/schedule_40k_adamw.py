# As schedule_80k_adamw.py with half of the iterations.
_base_ = './schedule_80k_adamw.py'

train_cfg = dict(max_iters=40000, val_interval=4000)
_base_.param_scheduler[0].end = 40000
