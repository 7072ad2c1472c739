# As for 256 x 192, at a higher resolution.
_base_ = [
    '../_base_/models/simple-baseline_r50.py',
    '../_base_/datasets/coco-keypoints_384x288.py',
    '../_base_/schedules/schedule_210e_adam.py',
    '../_base_/default_runtime_pose.py',
]

checkpoint = 'hybrid_mm://van-b2_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b2',
        out_indices=(3,),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=512, decoder={{_base_.codec}}),
)
