# As imagenet_1k_deit.py at 384 x 384, tested on the centre of images whose short side is 384 (crop
# ratio 1).
_base_ = './imagenet_1k_deit.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 384
_base_.val_dataloader.dataset.pipeline[1].scale = 384
_base_.val_dataloader.dataset.pipeline[2].crop_size = 384
_base_.test_dataloader.dataset.pipeline[1].scale = 384
_base_.test_dataloader.dataset.pipeline[2].crop_size = 384
