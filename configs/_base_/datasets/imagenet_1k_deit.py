# As imagenet_1k.py for networks trained as DeiT and Swin are: inputs with the mean and standard
# deviation of ImageNet, tested on 224 of 256 pixels.
_base_ = './imagenet_1k.py'

_base_.train_dataloader.dataset.pipeline[4].fill_color = [123.675, 116.28, 103.53]
_base_.train_dataloader.dataset.pipeline[4].fill_std = [58.395, 57.12, 57.375]
_base_.val_dataloader.dataset.pipeline[1].scale = 256
_base_.test_dataloader.dataset.pipeline[1].scale = 256
