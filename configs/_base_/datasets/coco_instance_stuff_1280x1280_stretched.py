# COCO 2017 with boxes, instance masks and the pixel maps of COCO-Stuff (stuffthingmaps/train2017/
# below COCO_ROOT), images stretched to 1280 x 1280.
_base_ = './coco_instance_1024x1024_stretched.py'

_base_.train_dataloader.dataset.data_prefix.seg = 'stuffthingmaps/train2017/'
_base_.train_dataloader.dataset.pipeline[1].with_seg = True
_base_.train_dataloader.dataset.pipeline[2].scale = (1280, 1280)
_base_.val_dataloader.dataset.pipeline[1].scale = (1280, 1280)
_base_.test_dataloader.dataset.pipeline[1].scale = (1280, 1280)
