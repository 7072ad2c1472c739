# SGD, 40k iterations, polynomial decay with power 0.9.
_base_ = './schedule_160k.py'

train_cfg = dict(max_iters=40000, val_interval=4000)
_base_.param_scheduler[0].end = 40000
