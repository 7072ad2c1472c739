# Dilated neighborhood attention in a Swin.
backbone = dict(
    type='hybrid_mm.DiNATs',
    arch=dict(embed_dim=40, depths=(2, 2, 4, 2), heads=(2, 4, 8, 16)),
    dilations=[[1, 8], [1, 4], [1, 2, 1, 2], [1, 1]],
)
widths = [40, 80, 160, 320]
host = 'swin'
