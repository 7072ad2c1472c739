# As imagenet_bs4096_adamw_300e.py with 120 epochs, as the studies of SLaK and PeLK are trained.
_base_ = './imagenet_bs4096_adamw_300e.py'

train_cfg = dict(max_epochs=120)
_base_.param_scheduler[1].end = 120
