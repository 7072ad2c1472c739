# SGD for HAM10000 from ImageNet weights: 30 epochs, cosine decay from 0.01 to 0.
_base_ = './imagenet_bs256_sgd_40e.py'

train_cfg = dict(max_epochs=30)
_base_.param_scheduler[0].update(end=30, T_max=30)
optim_wrapper = dict(optimizer=dict(lr=0.01))

# 1 GPU x 32 images
auto_scale_lr = dict(base_batch_size=32)
