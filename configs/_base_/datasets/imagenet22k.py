# ImageNet-22k, the 21,841 classes of the fall of 2011, for pre-training as on ImageNet-1k, without
# a validation. The folder is taken from the environment variable IMAGENET22K_ROOT if it is set:
# train/ with one folder per class; a list of the files in meta/train.txt saves their search.
_base_ = './imagenet_1k_deit.py'
dataset_type = 'ImageNet21k'
data_root = '{{$IMAGENET22K_ROOT:data/imagenet22k}}'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=_base_.train_dataloader.dataset.pipeline,
    )
)
val_dataloader = test_dataloader = val_evaluator = test_evaluator = None
