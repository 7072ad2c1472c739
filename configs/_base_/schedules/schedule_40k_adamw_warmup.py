# As schedule_80k_adamw_warmup.py with half of the iterations, no weight decay for any norm.
_base_ = './schedule_80k_adamw_warmup.py'

train_cfg = dict(max_iters=40000, val_interval=4000)
_base_.param_scheduler[0].end = 400
_base_.param_scheduler[1].end = 40000
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0))
