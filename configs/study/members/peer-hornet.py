# MMPretrain's HorNet.
backbone = dict(
    type='mmpretrain.HorNet',
    arch=dict(
        base_dim=40,
        depths=(2, 2, 5, 2),
        orders=(2, 3, 4, 5),
        dw_cfg=[
            dict(type='DW', kernel_size=7),
            dict(type='DW', kernel_size=7),
            dict(type='DW', kernel_size=7),
            dict(type='DW', kernel_size=7),
        ],
    ),
    scale=0.3333333333333333,
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
)
widths = [40, 80, 160, 320]
peer_of = 'hornet'
