# As imagenet_1k.py for networks whose inputs have the mean and standard deviation of ImageNet
# (models/classifier_resnet.py): random erasing fills with the same values.
_base_ = './imagenet_1k.py'

_base_.train_dataloader.dataset.pipeline[4].fill_color = [123.675, 116.28, 103.53]
_base_.train_dataloader.dataset.pipeline[4].fill_std = [58.395, 57.12, 57.375]
