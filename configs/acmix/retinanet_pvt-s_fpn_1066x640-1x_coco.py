_base_ = './retinanet_pvt-s_fpn_1x_coco.py'

scale = (1066, 640)
_base_.train_dataloader.dataset.pipeline[2].scale = scale
_base_.val_dataloader.dataset.pipeline[1].scale = scale
_base_.test_dataloader.dataset.pipeline[1].scale = scale
_base_.tta_pipeline[1].transforms[0] = [
    dict(type='Resize', scale=(int(1066 * ratio), int(640 * ratio)), keep_ratio=True)
    for ratio in (1.0, 0.5, 1.5)
]
