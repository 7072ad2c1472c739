# As coco_instance_ms-crop.py, with no limit to the longer side before the crop, and 8 images per
# GPU, as DETR and MViTv2 have it.
_base_ = './coco_instance_ms-crop.py'

_base_.train_pipeline[3].transforms[1][0].scales = [(s, 4200) for s in (400, 500, 600)]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.train_pipeline))
