# As coco_instance_lsj.py, also tested within 1024 x 1024.
_base_ = './coco_instance_lsj.py'

_base_.val_dataloader.dataset.pipeline[1].scale = (1024, 1024)
_base_.test_dataloader.dataset.pipeline[1].scale = (1024, 1024)
