# As coco_instance_1024x1024.py, fitted into 0.5 to 2 times the canvas for training.
_base_ = './coco_instance_1024x1024.py'

_base_.train_dataloader.dataset.pipeline[3].ratio_range = (0.5, 2.0)
