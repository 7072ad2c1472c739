# ELSA in the first stages of a Swin.
backbone = dict(
    type='hybrid_mm.ELSASwin',
    arch=dict(embed_dim=40, depths=(2, 2, 4, 2), heads=(2, 4, 8, 16), group_width=4),
)
widths = [40, 80, 160, 320]
host = 'swin'
