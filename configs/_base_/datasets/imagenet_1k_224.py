# As imagenet_1k.py for networks whose inputs have the mean and standard deviation of ImageNet
# (models/classifier_resnet.py), which is what RandAugment and random erasing fill with as well.
_base_ = './imagenet_1k.py'

# images are BGR within the pipeline
_base_.train_dataloader.dataset.pipeline[3].hparams.pad_val = [104, 116, 124]
_base_.train_dataloader.dataset.pipeline[4].fill_color = [103.53, 116.28, 123.675]
_base_.train_dataloader.dataset.pipeline[4].fill_std = [57.375, 57.12, 58.395]
