# As imagenet_1k_224.py at 512 x 512. Testing keeps the part that 224 of 248 pixels are.
_base_ = './imagenet_1k_224.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 512
_base_.val_dataloader.dataset.pipeline[1].scale = 567
_base_.val_dataloader.dataset.pipeline[2].crop_size = 512
_base_.test_dataloader.dataset.pipeline[1].scale = 567
_base_.test_dataloader.dataset.pipeline[2].crop_size = 512
