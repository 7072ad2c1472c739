# Classifier of MaxViT and CoAtNet: mean of the last map and layer norm (both in the backbone), a
# hidden layer with tanh, a linear layer. Mixup alone; inputs are scaled to [-1, 1] if not said
# otherwise.
_base_ = './classifier.py'

model = dict(
    head=dict(
        _delete_=True,
        type='VisionTransformerClsHead',
        num_classes=1000,
        init_cfg=dict(type='Normal', layer='Linear', std=0.02, bias=0.0),  # not 0, as MaxViT has it
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
)
