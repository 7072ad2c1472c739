# SGD, 80k iterations, polynomial decay with power 0.9.
_base_ = './schedule_160k.py'

train_cfg = dict(max_iters=80000, val_interval=8000)
_base_.param_scheduler[0].end = 80000
