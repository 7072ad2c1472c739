# HAM10000 (skin lesions, seven classes), split by lesion, at 224 x 224. The folder is taken from
# the environment variable HAM10000_ROOT if it is set: HAM10000_metadata.csv, and images/ with all
# images.
dataset_type = 'hybrid_mm.HAM10000'
data_root = '{{$HAM10000_ROOT:data/ham10000}}'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='HAM10000_metadata.csv',
        data_prefix=dict(img_path='images'),
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='HAM10000_metadata.csv',
        data_prefix=dict(img_path='images'),
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# Two thirds of the images are of one class: means over classes say more than the accuracy.
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='SingleLabelMetric', average='macro')]
test_evaluator = val_evaluator
