_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'

train_cfg = dict(max_iters=80000, val_interval=8000)
_base_.param_scheduler[1].end = 80000
