# As at 896 x 896, with the rate and weight decay published for this size; its cosine is said to
# take 115,750 iterations (unverified), here it takes 90,000 as for the other sizes.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_maxvit.py',
    '../_base_/datasets/coco_instance_640x640_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'checkpoints/maxvit-tiny_in1k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='tiny',
        window_size=20,
        drop_path_rate=0.7,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=1e-4))
