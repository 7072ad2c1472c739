# SGD for CIFAR-10: 300 epochs, the first 5 % linear warm-up, cosine decay to 0, both once an epoch;
# a LinearLR is through one step before its end. No weight decay for centres and spreads of
# quadratic attention.
_base_ = './imagenet_bs1024_sgd_100e.py'

train_cfg = dict(max_epochs=300)
_base_.param_scheduler[0].update(end=16, convert_to_iter_based=False)
_base_.param_scheduler[1].update(begin=15, end=300, T_max=285, convert_to_iter_based=False)
optim_wrapper = dict(
    optimizer=dict(lr=0.1),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={'.centers': dict(decay_mult=0.0), '.spreads': dict(decay_mult=0.0)},
    ),
)

# 1 GPU x 100 images: 50,000 / 100 = 500 iterations an epoch
auto_scale_lr = dict(base_batch_size=100)
