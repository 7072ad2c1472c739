# As imagenet_1k_maxvit.py at 512 x 512; the test crop is 512 of 544 pixels.
_base_ = './imagenet_1k_maxvit.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 512
_base_.val_dataloader.dataset.pipeline[1].scale = 544
_base_.val_dataloader.dataset.pipeline[2].crop_size = 512
_base_.test_dataloader.dataset.pipeline[1].scale = 544
_base_.test_dataloader.dataset.pipeline[2].crop_size = 512
