# As schedule_90k_adamw_maxvit.py for segmenters: 20k iterations at batch 32, 500 of warm-up, rate
# 1e-5 to 1 % of it.
_base_ = './schedule_90k_adamw_maxvit.py'

train_cfg = dict(max_iters=20000, val_interval=2000)
_base_.param_scheduler[0].end = 500
_base_.param_scheduler[1].update(end=20000, eta_min_ratio=0.01)
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=1e-4))

# 8 GPUs x 4 crops
auto_scale_lr = dict(base_batch_size=32)
