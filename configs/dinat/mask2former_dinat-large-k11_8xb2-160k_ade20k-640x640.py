# Crops of 640, trained in fp32. Presumably (unverified) the number of queries is that of COCO, and
# the weights are those of the 7 x 7 network with interpolated tables. The drop path rate is not
# given.
_base_ = [
    '../_base_/models/mask2former_r50_semantic.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/schedules/schedule_160k_mask2former.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='large',
        kernel_size=11,
        dilations='mask2former',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dinat-large_in22k.pth'),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536], num_queries=200),
)
train_dataloader = dict(batch_size=2)
