# As coco_instance_lsj.py with smaller crops padded to 1024 x 1024 with grey 128, and 8 images per
# GPU, as for MViTv2.
_base_ = './coco_instance_lsj.py'

_base_.train_pipeline.insert(
    5, dict(type='Pad', size=(1024, 1024), pad_val=dict(img=(128, 128, 128)))
)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.train_pipeline))
