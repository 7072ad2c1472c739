# As imagenet_bs4096_adamw_300e.py for 90 epochs of ImageNet-22k, 5 of them warm-up, without
# averages and validations, as RepLKNet is pre-trained.
_base_ = './imagenet_bs4096_adamw_300e.py'

train_cfg = dict(max_epochs=90)
val_cfg = test_cfg = None
_base_.param_scheduler[0].update(start_factor=1e-6, end=5)  # from (almost) 0
_base_.param_scheduler[1].update(begin=5, end=90)
custom_hooks = []
