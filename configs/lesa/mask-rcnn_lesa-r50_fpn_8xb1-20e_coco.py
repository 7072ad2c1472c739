# 8 GPUs x 1 image. Position tables of the classifier are interpolated; the authors draw new ones.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_1024x1024_stretched.py',
    '../_base_/schedules/schedule_20e.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://lesa-r50-axial_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.LESAResNet',
        arch='r50',
        deformable=(False, True, True, True),
        canvas_size=(1024, 1024),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
