# As imagenet_bs4096_sgd_130e.py in 350 epochs: 10 linear warm-up, cosine decay to 0; averaged
# weights are tested.
_base_ = './imagenet_bs4096_sgd_130e.py'

train_cfg = dict(max_epochs=350)
_base_.param_scheduler[1].end = 350
_base_.param_scheduler[1].T_max = 340
