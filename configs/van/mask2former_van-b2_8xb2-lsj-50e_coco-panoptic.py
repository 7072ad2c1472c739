# The paper states 50 epochs, batch 16, AdamW with rate 1e-4. Not published, so not verified: the
# rest of the recipe, which is Mask2Former's, and the drop path rate, which is that of UperNet on
# ADE20K.
_base_ = [
    '../_base_/models/mask2former_r50.py',
    '../_base_/datasets/coco_panoptic_lsj.py',
    '../_base_/schedules/schedule_50e_mask2former.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://van-b2_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b2',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    panoptic_head=dict(in_channels=[64, 128, 320, 512]),
)
