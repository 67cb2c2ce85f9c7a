"""Classification sets: Fashion-MNIST and CIFAR-10 as torchvision's classes read them, and class folders.

Images stay uint8 until they are on the device; `normalise` is the first thing done there. The random crop,
shift, flip and lighting of image i in epoch e depend on (seed, e, i) alone: not on workers, nor on a restart.
Legend: N images, C channels, H and W rows and columns in px.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.transforms import v2

from .config import EXPECTED, Data
from .pictures import read

# channel means and deviations of the training images, 0..255
STATISTICS = {
    "fashion_mnist": ((72.9,), (90.0,)),
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "imagefolder": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
# ImageNet's colour covariance (Krizhevsky et al. 2012): eigenvalues, and eigenvectors as columns, RGB in 0..1
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
SHIFT_PX = 2


def load(data: Data, train: bool) -> "ImageArrays | ImageFolders":
    """The training or test images of `data`. Raises ValueError when the folder is missing or incomplete."""
    root = data.folder
    complaint = f"no {data.kind} data in {root}: data.root must be {EXPECTED[data.kind]}"
    if not root.is_dir():
        raise ValueError(complaint)
    if data.kind == "imagefolder":
        return ImageFolders(root, data, train)
    made = {"fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[data.kind]
    try:
        source = made(root, train=train)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"{complaint}; what is there is incomplete or damaged ({error})") from error
    images = torch.as_tensor(source.data)
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    if len(images) != len(source.targets):
        raise ValueError(f"{complaint}; what is there has {len(images)} images and {len(source.targets)} labels")
    return ImageArrays(images, torch.as_tensor(source.targets), source.classes, data, train)


def normalise(images: Tensor, kind: str, light: Tensor | None = None) -> Tensor:
    """uint8 (N, C, H, W) -> float32 with mean 0 and deviation 1 per channel; light (N, C) is added in 0..1."""
    mean, deviation = (torch.tensor(s, device=images.device).view(1, -1, 1, 1) for s in STATISTICS[kind])
    pixels = images.float()
    if light is not None:
        pixels = pixels + 255 * light.view(*light.shape, 1, 1)
    return ((pixels - mean) / deviation).contiguous(memory_format=torch.channels_last)


def picture(file: Path, data: Data) -> Tensor:
    """A picture file of any size as an image of this set: uint8 (C, H, W). Raises ValueError if unreadable."""
    colours = "L" if len(STATISTICS[data.kind][0]) == 1 else "RGB"
    image = read(file).convert(colours)
    return v2.functional.resize(v2.functional.pil_to_tensor(image), list(data.image_size), antialias=True)


def evenly(labels: Tensor, limit: int) -> Tensor:
    """Indices of the first `limit` images, as many of each class as possible, in the set's order; 0: all."""
    if not 0 < limit < len(labels):
        return torch.arange(len(labels))
    classes = labels.unique()
    share, more = divmod(limit, len(classes))
    kept = [torch.nonzero(labels == c).flatten()[: share + (i < more)] for i, c in enumerate(classes)]
    return torch.cat(kept).sort().values


class ImageArrays(Dataset):
    """Images held in memory: uint8 (N, C, H, W). A batch is {"image", "label"} from a list of indices."""

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str], data: Data, train: bool) -> None:
        kept = evenly(labels, data.train_limit if train else 0)
        self.images, self.labels, self.kind = images[kept].contiguous(), labels[kept], data.kind
        self.classes, self.num_classes, self.channels = classes, len(classes), images.shape[1]
        self.augment = data.augment if train else "none"
        self.flips, self.shifts = torch.zeros(len(kept), dtype=torch.bool), torch.zeros(len(kept), 2).long()

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Draw the flips and shifts of every image for this epoch."""
        draw = torch.Generator().manual_seed(seed + epoch)
        self.flips = torch.rand(len(self), generator=draw) < 0.5
        self.shifts = torch.randint(0, 2 * SHIFT_PX + 1, (len(self), 2), generator=draw)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices)
        images = self.images[chosen]
        if self.augment != "none":
            images = torch.where(self.flips[chosen].view(-1, 1, 1, 1), images.flip(-1), images)
        if self.augment == "shift":
            images = _shifted(images, self.shifts[chosen])
        return {"image": images, "label": self.labels[chosen]}


def _shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Each image moved by its shift minus SHIFT_PX in y and x, black at the border."""
    n, _, height, width = images.shape
    padded = F.pad(images, [SHIFT_PX] * 4).permute(0, 2, 3, 1)  # (N, H+, W+, C): plain indexing is fast there
    rows = shifts[:, :1] + torch.arange(height)  # (N, H)
    columns = shifts[:, 1:] + torch.arange(width)  # (N, W)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ImageFolders(Dataset):
    """root/train and root/val with one folder per class; pictures are decoded when asked for."""

    def __init__(self, root: Path, data: Data, train: bool) -> None:
        folder = root / ("train" if train else "val")
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing: data.root must be {EXPECTED['imagefolder']}")
        try:
            source = datasets.ImageFolder(folder)
        except FileNotFoundError as error:
            raise ValueError(f"{folder} has an empty class or none ({error}); run `data check {root}`") from error
        labels = torch.tensor(source.targets)
        kept = evenly(labels, data.train_limit if train else 0)
        self.files = [source.samples[i][0] for i in kept]
        self.labels, self.channels = labels[kept], 3
        self.classes, self.num_classes = source.classes, len(source.classes)
        self.kind, self.lighting, self.seed = data.kind, data.lighting if train else 0.0, (0, 0)
        size = list(data.image_size)
        crop = [v2.RandomResizedCrop(size, scale=(0.08, 1), antialias=True), v2.RandomHorizontalFlip()]
        centre = [v2.Resize(round(size[0] * 256 / 224), antialias=True), v2.CenterCrop(size)]
        augmented = {"crop": crop, "flip": [v2.Resize(size), v2.RandomHorizontalFlip()]}
        self.transform = v2.Compose([v2.PILToTensor(), *(augmented.get(data.augment, centre) if train else centre)])

    def __len__(self) -> int:
        return len(self.files)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Fix the random draws of this epoch."""
        self.seed = (seed, epoch)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        items = [self._item(i) for i in indices]
        batch = {"image": torch.stack([image for image, _ in items]), "label": self.labels[indices]}
        if self.lighting:
            batch["light"] = torch.stack([light for _, light in items])
        return batch

    def _item(self, i: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((*self.seed, i)))
            weights = torch.randn(3) * self.lighting * torch.tensor(EIGENVALUES)
            image = self.transform(read(self.files[i]))
        return image, torch.tensor(EIGENVECTORS) @ weights
