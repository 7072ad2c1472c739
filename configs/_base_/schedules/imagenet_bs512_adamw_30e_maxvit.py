# Fine-tuning with the recipe of MaxViT, 30 epochs at a constant rate of 5e-5; otherwise as
# imagenet_bs4096_adamw_300e_maxvit.py, with weight decay 1e-8.
_base_ = './imagenet_bs4096_adamw_300e_maxvit.py'

train_cfg = dict(max_epochs=30)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True, begin=0, end=30)]
optim_wrapper = dict(optimizer=dict(lr=5e-5, weight_decay=1e-8))

# 32 GPUs x 16 images; 1,281,167 / 512 = 2,502 iterations an epoch
auto_scale_lr = dict(base_batch_size=512)
