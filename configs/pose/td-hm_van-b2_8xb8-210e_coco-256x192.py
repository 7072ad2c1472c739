# The paper states Simple Baselines, Adam, rate 5e-4, batch 64, 210 epochs. Not published, so not
# verified: steps, warm-up, augmentation and test, which are those of MMPose's configs for this
# head, and the drop path rate.
_base_ = [
    '../_base_/models/simple-baseline_r50.py',
    '../_base_/datasets/coco-keypoints_256x192.py',
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
