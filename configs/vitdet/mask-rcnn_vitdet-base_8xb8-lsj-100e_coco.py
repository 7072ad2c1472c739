# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_4conv1fc-ln.py',
    '../_base_/datasets/coco_instance_lsj_1024.py',
    '../_base_/schedules/schedule_bs64_lsj-100e_adamw_layer-decay.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://mae-base_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ViT',
        arch='base',
        window_size=14,
        relative=True,
        class_token=False,
        img_size=1024,
        out_indices=(3,),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(_delete_=True, type='hybrid_mm.SimpleFPN', in_channels=768, out_channels=256),
)
