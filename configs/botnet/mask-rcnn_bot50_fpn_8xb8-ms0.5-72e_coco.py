_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-72e_coco.py'

_base_.train_dataloader.dataset.pipeline[3].ratio_range = (0.5, 2.0)
