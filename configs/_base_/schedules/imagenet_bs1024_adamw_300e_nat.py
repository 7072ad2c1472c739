# As imagenet_bs1024_adamw_300e_swin.py with cosine decay to 5e-6 at epoch 300 and 10 epochs there
# (timm's cool-down), as NAT and DiNAT are trained. Tables of relative positions decay: the authors
# name them in no_weight_decay_keywords(), which timm does not read.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

train_cfg = dict(max_epochs=310)
_base_.param_scheduler[1].eta_min = 5e-6
_base_.optim_wrapper.paramwise_cfg.pop('custom_keys')
