# As imagenet_bs4096_adamw_300e.py with batches of 2048 and 10 epochs of warm-up, as RepLKNet is
# trained.
_base_ = './imagenet_bs4096_adamw_300e.py'

_base_.param_scheduler[0].end = 10
_base_.param_scheduler[1].begin = 10

# 32 GPUs x 64 images; 1,281,167 / 2,048 = 626 iterations an epoch
auto_scale_lr = dict(base_batch_size=2048)
