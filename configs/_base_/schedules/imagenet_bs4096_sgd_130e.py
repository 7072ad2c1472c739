# SGD with Nesterov momentum for ImageNet-1k: 130 epochs, the first 10 linear warm-up, cosine decay
# to 0; rate 0.1 for 256 images; averaged weights are tested.
_base_ = './imagenet_bs1024_sgd_100e.py'

train_cfg = dict(max_epochs=130)
_base_.param_scheduler[0].end = 10
_base_.param_scheduler[1].update(begin=10, end=130, T_max=120)
optim_wrapper = dict(optimizer=dict(lr=1.6, nesterov=True))
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]

# 32 GPUs x 128 images; 1,281,167 / 4,096 = 313 iterations an epoch
auto_scale_lr = dict(base_batch_size=4096)
