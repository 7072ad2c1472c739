# Selective kernels in place of the 3x3 convolutions, as SKNet-50: widths and groups are those of
# ResNeXt-50 32x4d.
backbone = dict(
    type='hybrid_mm.AttentionResNet',
    base='hybrid_mm.PluginResNeXt',
    depth=50,
    groups=32,
    base_width=4,
    conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')),
)
