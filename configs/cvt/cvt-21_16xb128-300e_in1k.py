# The rate is 0.000125 for each GPU of 128 images, 2,048 images in all. The authors' file turns off
# timm's loader, with which RandAugment and erasing go: an oversight, for the paper trains as DeiT.
_base_ = './cvt-13_8xb256-300e_in1k.py'

model = dict(backbone=dict(arch='21'))
optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
train_dataloader = dict(batch_size=128, sampler=dict(type='RepeatAugSampler', shuffle=True))
