# As imagenet_1k_224.py at 448 x 448. The test crop has the ratio of 224 to 248 pixels.
_base_ = './imagenet_1k_224.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 448
_base_.val_dataloader.dataset.pipeline[1].scale = 496
_base_.val_dataloader.dataset.pipeline[2].crop_size = 448
_base_.test_dataloader.dataset.pipeline[1].scale = 496
_base_.test_dataloader.dataset.pipeline[2].crop_size = 448
