# Swin whose window attention is ACmix.
backbone = dict(
    type='hybrid_mm.ACmixSwin', arch=dict(embed_dim=40, depths=(2, 2, 4, 2), heads=(2, 4, 8, 16))
)
widths = [40, 80, 160, 320]
host = 'swin'
