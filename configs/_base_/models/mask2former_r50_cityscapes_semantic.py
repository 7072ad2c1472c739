# Mask2Former for semantic segmentation of the 19 classes of Cityscapes on a ResNet-50, crops of
# 512 x 1024.
_base_ = './mask2former_r50_semantic.py'

num_classes = 19
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(
        num_classes=num_classes, loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])
    ),
)
