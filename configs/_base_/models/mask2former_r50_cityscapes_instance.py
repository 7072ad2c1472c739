# Mask2Former for instance segmentation of Cityscapes (8 things, no stuff) on a ResNet-50, 200
# queries, training images of 512 x 1024.
_base_ = './mask2former_r50_instance.py'

num_classes = 8
_base_.model.data_preprocessor.batch_augments[0].size = (512, 1024)
model = dict(
    panoptic_head=dict(
        num_things_classes=num_classes,
        num_queries=200,
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=num_classes),
)
