# Mask2Former for panoptic segmentation of ADE20K (100 things, 50 stuff) on a ResNet-50, 200
# queries, training images of 640 x 640.
_base_ = './mask2former_r50.py'

classes = dict(num_things_classes=100, num_stuff_classes=50)
_base_.model.data_preprocessor.batch_augments[0].size = (640, 640)
model = dict(
    panoptic_head=dict(num_queries=200, loss_cls=dict(class_weight=[1.0] * 150 + [0.1]), **classes),
    panoptic_fusion_head=classes,
)
