# ImageNet-1k at 224 x 224 with the augmentation of MaxViT: random crops, flips, two operations of
# RandAugment at level 15, where MMPretrain's end at 10; Mixup is in models/classifier_tanh.py. The
# test crop is 224 of 256 pixels. Mean and standard deviation are in the configs.
_base_ = './imagenet_1k.py'

_base_.train_dataloader.dataset.pipeline.pop(4)
_base_.train_dataloader.dataset.pipeline[3].magnitude_level = 15
_base_.val_dataloader.dataset.pipeline[1].scale = 256
_base_.test_dataloader.dataset.pipeline[1].scale = 256
