# As coco_instance_lsj.py, padded with grey (128) to 1024 x 1024, as Mask2Former is trained.
_base_ = './coco_instance_lsj.py'

_base_.train_pipeline.insert(
    5, dict(type='Pad', size=(1024, 1024), pad_val=dict(img=(128, 128, 128)))
)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
