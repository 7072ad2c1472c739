# As coco_instance_lsj.py with test images fitted into 1024 x 1024 too, and 8 images per GPU.
_base_ = './coco_instance_lsj.py'

train_dataloader = dict(batch_size=8)
_base_.val_dataloader.dataset.pipeline[1].scale = (1024, 1024)
_base_.test_dataloader.dataset.pipeline[1].scale = (1024, 1024)
