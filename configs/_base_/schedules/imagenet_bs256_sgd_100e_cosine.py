# SGD for ImageNet-1k: 100 epochs, cosine decay from 0.1 to 0 by epoch, no warm-up, weight decay on
# every parameter (SAN).
_base_ = './imagenet_bs256_sgd_40e.py'

train_cfg = dict(max_epochs=100)
_base_.param_scheduler[0].update(end=100, T_max=100, convert_to_iter_based=False)
optim_wrapper = dict(optimizer=dict(lr=0.1))

# 8 GPUs x 32 images; 1,281,167 / 256 = 5,005 iterations an epoch, 500,500 in all
