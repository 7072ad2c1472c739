# As imagenet_1k.py for networks trained as DeiT and Swin are: inputs with the mean and standard
# deviation of ImageNet, tested on 224 of 256 pixels.
_base_ = './imagenet_1k.py'

# images are BGR within the pipeline
_base_.train_dataloader.dataset.pipeline[3].hparams.pad_val = [104, 116, 124]
_base_.train_dataloader.dataset.pipeline[4].fill_color = [103.53, 116.28, 123.675]
_base_.train_dataloader.dataset.pipeline[4].fill_std = [57.375, 57.12, 58.395]
_base_.val_dataloader.dataset.pipeline[1].scale = 256
_base_.test_dataloader.dataset.pipeline[1].scale = 256
