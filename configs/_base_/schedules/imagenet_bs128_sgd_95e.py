# SGD with Nesterov's momentum for ImageNet-1k: 95 epochs, 5 of them linear warm-up, cosine decay by
# iteration to 0, weight decay on every parameter (LESA).
_base_ = './imagenet_bs128_sgd_90e_cosine.py'

train_cfg = dict(max_epochs=95)
_base_.param_scheduler[0].start_factor = 2e-5  # a first step of 50,045
_base_.param_scheduler[1].end = 95
optim_wrapper = dict(optimizer=dict(lr=0.05, nesterov=True, weight_decay=8e-5))

# 4 GPUs x 32 images; 1,281,167 / 128 = 10,009 iterations an epoch, 950,855 in all
