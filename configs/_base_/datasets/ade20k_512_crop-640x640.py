# ADE20K with crops of 640 x 640 of images that are resized, and tested, as for 512 x 512.
_base_ = './ade20k.py'
crop_size = (640, 640)

_base_.train_pipeline[3].crop_size = crop_size
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
