# distribuuuu's recipe of botnet50: 100 epochs of SGD, rate 0.2 for 256 images, Nesterov momentum,
# weight decay 5e-5 of all parameters. The rate changes once an epoch: cosine decay from the first
# on, times a linear warm-up from a tenth that ends with the sixth.
_base_ = './imagenet_bs1024_sgd_100e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, end=100, T_max=100),
]
optim_wrapper = dict(
    optimizer=dict(lr=0.2, nesterov=True, weight_decay=0.00005),
    paramwise_cfg=dict(norm_decay_mult=1.0, bias_decay_mult=1.0),
)

# 8 GPUs x 32 images; 1,281,167 / 256 = 5,005 iterations an epoch
auto_scale_lr = dict(base_batch_size=256)
