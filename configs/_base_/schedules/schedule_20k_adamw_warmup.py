# As schedule_40k_adamw_warmup.py with half of the iterations.
_base_ = './schedule_40k_adamw_warmup.py'

train_cfg = dict(max_iters=20000, val_interval=2000)
_base_.param_scheduler[1].end = 20000
