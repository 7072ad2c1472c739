# COCO 2017 with boxes and instance masks, images stretched to 1024 x 1024.
_base_ = './coco_instance.py'

_base_.train_dataloader.dataset.pipeline[2] = dict(
    type='Resize', scale=(1024, 1024), keep_ratio=False
)
_base_.val_dataloader.dataset.pipeline[1] = dict(
    type='Resize', scale=(1024, 1024), keep_ratio=False
)
_base_.test_dataloader.dataset.pipeline[1] = dict(
    type='Resize', scale=(1024, 1024), keep_ratio=False
)
