# As coco_detection_640x640.py on a canvas of 1280 x 1280.
_base_ = './coco_detection_640x640.py'

canvas = (1280, 1280)
_base_.train_dataloader.dataset.pipeline[2].scale = canvas
_base_.train_dataloader.dataset.pipeline[3].crop_size = canvas
_base_.train_dataloader.dataset.pipeline[5].size = canvas
_base_.val_dataloader.dataset.pipeline[1].scale = canvas
_base_.val_dataloader.dataset.pipeline[2].size = canvas
_base_.test_dataloader.dataset.pipeline[1].scale = canvas
_base_.test_dataloader.dataset.pipeline[2].size = canvas
