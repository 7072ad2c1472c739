# Fine-tunes a trained ResNet-50, without plugins; files that inherit from this one add plugins,
# which start as the identity. The official code has no such recipe; see recipe.yml.
_base_ = [
    '../_base_/models/classifier_resnet.py',
    '../_base_/datasets/imagenet_1k_plain.py',
    '../_base_/schedules/imagenet_bs256_sgd_40e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.PluginResNet',
        depth=50,
        out_indices=(3,),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
)

train_dataloader = dict(batch_size=32)
