# As imagenet_1k_qna.py at 384 x 384, tested on 384 of 416 pixels.
_base_ = './imagenet_1k_qna.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 384
_base_.val_dataloader.dataset.pipeline[1].scale = 416
_base_.val_dataloader.dataset.pipeline[2].crop_size = 384
_base_.test_dataloader.dataset.pipeline[1].scale = 416
_base_.test_dataloader.dataset.pipeline[2].crop_size = 384
