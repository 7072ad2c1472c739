# ViT-B of ImageNet-21k, fine-tuned on ImageNet-1k: jx_vit_base_p16_224-80ecf9dd.pth of timm.
_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(drop_path_rate=0.0, init_cfg=dict(checkpoint='hybrid_mm://vit-base_in21k-in1k')),
    neck=dict(
        type='MultiLevelNeck', in_channels=[768] * 4, out_channels=768, scales=[4, 2, 1, 0.5]
    ),
)
