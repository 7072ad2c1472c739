# One image a GPU: the rate for 16 images, divided by 1.4.
_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://pvt-l_in1k'
model = dict(backbone=dict(arch='large', drop_path_rate=0.0, init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(optimizer=dict(lr=0.0002 / 1.4))
train_dataloader = dict(batch_size=1)

# 8 GPUs x 1 image
auto_scale_lr = dict(base_batch_size=8)
