# Fine-tuned at 384 x 384 with ViT's strategy, as the paper says; the authors' file of this network
# repeats the recipe of 224. 8 GPUs x 64 images
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_finetune_384.py',
    '../_base_/schedules/imagenet_bs512_sgd_20k.py',
    '../_base_/default_runtime_cls_iters.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.CvT',
        arch='13',
        pooled=True,
        drop_path_rate=0.1,
        out_indices=(2,),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://cvt-13_in1k'),
    ),
    neck=None,
    head=dict(in_channels=384, loss=dict(_delete_=True, type='CrossEntropyLoss')),
    train_cfg=None,
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
train_dataloader = dict(batch_size=64)
