# As imagenet_1k_224.py at 600 x 600. The test crop has the ratio of 224 to 248 pixels.
_base_ = './imagenet_1k_224.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 600
_base_.val_dataloader.dataset.pipeline[1].scale = 664
_base_.val_dataloader.dataset.pipeline[2].crop_size = 600
_base_.test_dataloader.dataset.pipeline[1].scale = 664
_base_.test_dataloader.dataset.pipeline[2].crop_size = 600
