# The paper's encoder on CIFAR-10: 2 x 2 patches, 6 layers, mean of the map and a linear layer.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=10,
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
        to_rgb=False,
    ),
    backbone=dict(
        type='hybrid_mm.QuadraticAttentionEncoder',
        mode='isotropic',
        channels=400,
        heads=9,
        dropout=0.1,
        attn_drop=0.1,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=10, in_channels=400, loss=dict(type='CrossEntropyLoss')
    ),
)
