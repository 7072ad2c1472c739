"""Data sets and transforms."""

from hybrid_mm.data.checked import CheckedDataset
from hybrid_mm.data.corruptions import Corrupt
from hybrid_mm.data.deep_images import LoadDeepImage
from hybrid_mm.data.ham10000 import HAM10000
from hybrid_mm.data.imagenet_variants import ImageNetA, ImageNetC, ImageNetR, ImageNetSketch
from hybrid_mm.data.multichannel import LoadMultichannelImage, ShowChannels
from hybrid_mm.data.seeded import PlacedSampler, SeededDataset
from hybrid_mm.data.workers import LostBatchError

__all__ = [
    'HAM10000',
    'CheckedDataset',
    'Corrupt',
    'ImageNetA',
    'ImageNetC',
    'ImageNetR',
    'ImageNetSketch',
    'LoadDeepImage',
    'LoadMultichannelImage',
    'LostBatchError',
    'PlacedSampler',
    'SeededDataset',
    'ShowChannels',
]
