# As imagenet_bs1024_sgd_100e.py with rate 0.2 for 256 images, Nesterov momentum and weight decay
# 5e-5: distribuuuu's recipe of botnet50.
_base_ = './imagenet_bs1024_sgd_100e.py'

optim_wrapper = dict(optimizer=dict(lr=0.2, nesterov=True, weight_decay=0.00005))

# 8 GPUs x 32 images; 1,281,167 / 256 = 5,005 iterations an epoch
auto_scale_lr = dict(base_batch_size=256)
