# From the ViTDet paper's comparison with MViTv2.
# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-ln.py',
    '../_base_/datasets/coco_instance_lsj_1024.py',
    '../_base_/schedules/schedule_bs64_lsj-50e_adamw.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://mvitv2-large_in21k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MViTv2',
        arch='large',
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[144, 288, 576, 1152]),
)
optim_wrapper = dict(optimizer=dict(lr=8e-5))
