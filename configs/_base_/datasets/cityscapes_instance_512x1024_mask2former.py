# Cityscapes with instance masks of its 8 things (instancesonly_filtered_gtFine_{train,val}.json of
# MMDetection's cityscapes.py), augmented as cityscapes_512x1024_mask2former.py. The metric is
# COCO's; that of Cityscapes is MMDetection's CityScapesMetric, which needs cityscapesScripts.
_base_ = './ade20k_instance_640x640_mask2former.py'

dataset_type = 'CityscapesDataset'
data_root = '{{$CITYSCAPES_ROOT:data/cityscapes}}'

_base_.train_pipeline[2].scales = [(4096, int(102.4 * x)) for x in range(5, 21)]
_base_.train_pipeline[3].crop_size = (512, 1024)
_base_.train_pipeline.pop(7)  # no crop is smaller than that
_base_.test_pipeline[1].scale = (2048, 1024)
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_train.json',
        data_prefix=dict(img='leftImg8bit/train/'),
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_val.json',
        data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + '/annotations/instancesonly_filtered_gtFine_val.json')
test_evaluator = val_evaluator
