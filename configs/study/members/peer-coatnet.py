# timm's CoAtNet.
backbone = dict(
    type='hybrid_mm.StudyMaxxVit',
    base='coatnet_0',
    img_size=(256, 320),
    dim_head=16,
    embed_dim=(32, 64, 128, 256),
    depths=(1, 2, 4, 3),
    stem_width=32,
)
widths = [32, 64, 128, 256]
peer_of = 'coatnet'
package = 'timm'
