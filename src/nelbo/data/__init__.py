"""The sources of images: named sets, folders, arrays, objects; and the loader that serves them.

splits = Data(source="mnist", validation=0.1).load()
batches = Batches(splits.train, splits.transforms, 128, device=device, shuffle_seed=0, training=True)
"""

from nelbo.data.arrays import Reading
from nelbo.data.download import data_root
from nelbo.data.images import Images
from nelbo.data.loader import Batches, materialise
from nelbo.data.objects import from_object
from nelbo.data.ondisk import OnDisk
from nelbo.data.sources import Available, Dataset, available
from nelbo.data.spec import Data
from nelbo.data.splits import Loaded, Pixels, Splits
from nelbo.data.transforms import Binarise, Dequantise, DynamicBinarise, Resize, Scale, Transform, frozen

__all__ = [
    "Available",
    "Batches",
    "Binarise",
    "Data",
    "Dataset",
    "Dequantise",
    "DynamicBinarise",
    "Images",
    "Loaded",
    "OnDisk",
    "Pixels",
    "Reading",
    "Resize",
    "Scale",
    "Splits",
    "Transform",
    "available",
    "data_root",
    "from_object",
    "frozen",
    "materialise",
]
