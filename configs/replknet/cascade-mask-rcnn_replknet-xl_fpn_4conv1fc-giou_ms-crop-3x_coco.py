# Published with four images per GPU. MegData73M, the data of the pre-training, is not public.
_base_ = './cascade-mask-rcnn_replknet-31b_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://replknet-xl_megdata73m'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch='xl', norm_outputs='all', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
