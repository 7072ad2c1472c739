# As coco_instance_1024x1024_ms0.1.py on a canvas of 640 x 640, fitted into 0.1 to 2.5 times that.
_base_ = './coco_instance_1024x1024_ms0.1.py'

canvas = (640, 640)
_base_.train_dataloader.dataset.pipeline[3].scale = canvas
_base_.train_dataloader.dataset.pipeline[3].ratio_range = (0.1, 2.5)
_base_.train_dataloader.dataset.pipeline[4].crop_size = canvas
_base_.train_dataloader.dataset.pipeline[6].size = canvas
_base_.val_dataloader.dataset.pipeline[1].scale = canvas
_base_.val_dataloader.dataset.pipeline[2].size = canvas
_base_.test_dataloader.dataset.pipeline[1].scale = canvas
_base_.test_dataloader.dataset.pipeline[2].size = canvas
