# The recipe is that of ConvNeXt (unverified): the paper gives no details.
_base_ = './cascade-mask-rcnn_pelk-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'checkpoints/pelk-small_in1k.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
