"""Classification sets: Fashion-MNIST and CIFAR-10 as torchvision's classes read them, and class folders.

Images stay uint8 until they are on the device; `normalise` is the first thing done there. The random crop,
shift, flip and lighting of image i in epoch e depend on (seed, e, i) alone: not on workers, nor on a restart.
Legend: N images, C channels, H and W rows and columns in px.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from ..recipe.schema import EXPECTED, Data
from ..training import memory
from ..training.progress import log
from . import manifest
from .pictures import STATISTICS, formats, read

# ImageNet's colour covariance (Krizhevsky et al. 2012): eigenvalues, and eigenvectors as columns, RGB in 0..1
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
SHIFT_PX = 2
MOST_RESIZED = 2**28  # pixels of a picture once its shorter side is resized


def load(data: Data, train: bool) -> "ImageArrays | ImageFolders":
    """The training images of `data`, or those it is judged by: the test images, or the share `validation` of the
    training images. Raises ValueError when the folder is missing or incomplete."""
    root = data.folder
    complaint = f"no {data.kind} data in {root}: data.root must be {EXPECTED[data.kind]}"
    if not root.is_dir():
        raise ValueError(complaint)
    complaint += _other_kind(root, data.kind)
    if data.kind == "imagefolder" or (data.kind == "cifar10" and (root / "train").is_dir()):
        if data.in_memory or data.kind == "cifar10":
            return _decoded(root, data, train)
        return ImageFolders(root, data, train)
    source_class = {"fashion_mnist": FashionMNIST, "cifar10": datasets.CIFAR10}[data.kind]
    try:
        source = source_class(root, train=train or data.validation > 0)
    except (RuntimeError, OSError, ValueError, AssertionError, KeyError, TypeError) as error:
        raise ValueError(f"{complaint}; what is there is incomplete or damaged ({error})") from error
    images, labels = torch.as_tensor(source.data), torch.as_tensor(source.targets)
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    if len(images) != len(labels):
        raise ValueError(f"{complaint}; what is there has {len(images)} images and {len(labels)} labels")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(source.classes):
        odd = int(labels.max()) if int(labels.max()) >= len(source.classes) else int(labels.min())
        raise ValueError(f"{complaint}; what is there is damaged: it has the label {odd}, and no class of that number")
    if tuple(images.shape[2:]) != data.image_size:
        height, width = images.shape[2:]
        raise ValueError(
            f"the images of kind {data.kind} in {root} have {height} x {width} px, recipe key data.image_size says "
            f"{list(data.image_size)}: say [{height}, {width}], or copy the images again if that is not their size"
        )
    return ImageArrays(images, labels, source.classes, data, train)


def _other_kind(root: Path, kind: str) -> str:
    """The half sentence for a folder that another `data.kind` would read; "" where none would."""
    marks = {"fashion_mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py", "coco": "annotations"}
    marks |= {"imagefolder": "train"}
    fits = [other for other, name in marks.items() if (root / name).is_dir() and other != kind]
    return f" (it looks like data.kind={fits[0]})" if fits else ""


class FashionMNIST(datasets.FashionMNIST):
    """torchvision's, which never takes the unpickled `processed/` of its older releases in place of `raw/`."""

    def _check_legacy_exist(self) -> bool:
        return False


def _shorter_px(data: Data) -> int:
    """The shorter side of a picture of class folders before its centre is cut out: the centre is full of picture."""
    return round(max(data.image_size) * 256 / 224)


def _check_thin(opened: Image.Image, file: str | Path, data: Data) -> None:
    """Raises ValueError for a picture so thin that it would fill the memory once its shorter side is resized."""
    if data.kind == "imagefolder" and not data.in_memory:
        longer, shorter = max(opened.size), min(opened.size)
        if longer / shorter * _shorter_px(data) ** 2 > MOST_RESIZED:
            raise ValueError(
                f"picture {file} has {opened.width} x {opened.height} px, too thin to be resized to data.image_size: "
                "crop it, or remove it"
            )


def as_judged(data: Data) -> v2.Transform:
    """What makes an image of the judged set out of a picture: class folders are resized and cropped at the centre,
    images that are held in memory are resized to their size. PIL picture -> uint8 (C, H, W)."""
    size = list(data.image_size)
    if data.kind == "imagefolder" and not data.in_memory:
        resized = v2.Resize(_shorter_px(data), antialias=True)
        return v2.Compose([v2.PILToTensor(), resized, v2.CenterCrop(size)])
    return v2.Compose([v2.PILToTensor(), v2.Resize(size, antialias=True)])


def picture(file: str | Path, data: Data) -> Tensor:
    """A picture file as an image of the judged set: uint8 (C, H, W), upright. Raises ValueError if unreadable."""
    image = read(file, exif_rotation=True)
    _check_thin(image, file, data)
    grey = len(STATISTICS[data.kind][0]) == 1
    return as_judged(data)(image.convert("L") if grey else image)


def _decoded(root: Path, data: Data, train: bool) -> "ImageArrays":
    files, labels, classes = _listed(root, data, train)
    if not files:
        raise ValueError(f"{root} has no picture that can be read; `python -m bnc_repro data check {root}` says why")
    all_of_them = replace(data, train_limit=0, validation=0.0)  # they are chosen already
    stamps = tuple(Path(file).stat().st_mtime_ns for file in files)
    return ImageArrays(_pixels(tuple(files), stamps, data.image_size), labels, classes, all_of_them, train)


@lru_cache(maxsize=4)  # a run's two sets, and those of the run before
def _pixels(files: tuple[str, ...], stamps: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    memory.refuse_above(
        len(files) * 3 * size[0] * size[1] / 2**20,
        f"{len(files)} pictures are held decoded at {size[1]} x {size[0]} px",
        "lower data.image_size or data.train_limit, or leave data.in_memory out",
        torch.device("cpu"),
    )
    resized = Data(kind="cifar10", image_size=size)
    with ThreadPoolExecutor() as pool:
        return torch.stack(list(pool.map(lambda file: picture(file, resized), files)))


def _listed(root: Path, data: Data, train: bool) -> tuple[list[str], Tensor, list[str]]:
    """The readable files of a split, at most `train_limit` of them for training, their labels, and the classes' names.
    Raises ValueError for more unreadable ones than `max_bad_share` allows in training, and any in the test."""
    folder = root / ("train" if train or data.validation else "val")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is missing: data.root must be {EXPECTED['imagefolder']}, as data.kind is {data.kind}"
            f"{_other_kind(root, data.kind)}"
        )
    _refuse_unseen(folder)
    try:
        source = datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has an empty class or none ({error}); run `data check {root}`") from error
    labels = torch.tensor(source.targets)
    files = [name for name, _ in source.samples]
    missing = manifest.missing_pictures(root, folder.name, files)
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} pictures that {manifest.NAME} lists, such as {missing[0]}: copy them, "
            f"or let `python -m bnc_repro data check {root}` write {manifest.NAME} anew"
        )
    kept = chosen(labels, data, train).tolist()
    bad = manifest.bad_pictures(root, [files[i] for i in kept])
    if len(bad) > (data.max_bad_share * len(kept) if train else 0):
        more = f" ({len(bad)} such pictures)" if len(bad) > 1 else ""
        raise ValueError(
            f"{next(iter(bad.values()))}{more}; recipe key data.max_bad_share is the share of the training pictures "
            "that a run may do without"
        )
    for sentence in bad.values():
        log.warning(f"{sentence}; left out of training")
    kept = [i for i in kept if files[i] not in bad]
    return [files[i] for i in kept], labels[kept], source.classes


def _refuse_unseen(folder: Path) -> None:
    """Raise ValueError for pictures of a split that torchvision would not list, for a hidden folder that it would take
    for a class, and for links in which it would go round."""
    for path in sorted(folder.glob(".*")):
        if path.is_dir():
            raise ValueError(f"{path} is hidden and would be a class of its own: remove it")
    taken = formats()
    kinds = {end for end, form in Image.registered_extensions().items() if form in taken} - {*IMG_EXTENSIONS}
    unseen = [path for path in manifest.files_below(folder) if path.suffix.lower() in kinds and path.parent != folder]
    if unseen:
        others = ", ".join(sorted({path.suffix.lower() for path in unseen}))
        raise ValueError(
            f"{folder} has {len(unseen)} pictures of kinds that class folders do not take ({others}), such as "
            f"{min(unseen)}: convert them to PNG or JPEG, or move them away"
        )


def evenly(labels: Tensor, limit: int) -> Tensor:
    """Indices of the first `limit` images, as many of each class as possible, in the set's order; 0: all."""
    if not 0 < limit < len(labels):
        return torch.arange(len(labels))
    classes = labels.unique()
    share, more = divmod(limit, len(classes))
    kept = [torch.nonzero(labels == c).flatten()[: share + (i < more)] for i, c in enumerate(classes)]
    return torch.cat(kept).sort().values


def chosen(labels: Tensor, data: Data, train: bool) -> Tensor:
    """Indices of the images that a set takes out of its split: `train_limit` of them, without or with those held out
    for validation, which lie evenly among them."""
    if not data.validation:
        return evenly(labels, data.train_limit if train else 0)
    kept = evenly(labels, data.train_limit)
    places = torch.arange(len(kept) + 1) * data.validation
    held_out = places[1:].floor() > places[:-1].floor()
    if not held_out.any():
        raise ValueError(
            f"recipe key data.validation is {data.validation:g}, which holds out none of {len(kept)} training images: "
            "take a larger share, or a larger data.train_limit"
        )
    return kept[~held_out if train else held_out]


class ImageArrays(Dataset):
    """Images held in memory, on any device: uint8 (N, C, H, W). A batch is {"image", "label"} from indices."""

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str], data: Data, train: bool) -> None:
        kept = chosen(labels, data, train)
        self.images, self.labels, self.kind = images[kept].contiguous(), labels[kept], data.kind
        self.classes, self.num_classes, self.channels = classes, len(classes), images.shape[1]
        self.augment = data.augment if train else "none"
        self.flips, self.shifts = torch.zeros(len(kept), dtype=torch.bool), torch.zeros(len(kept), 2).long()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the images lie, and batches are made."""
        return self.images.device

    def to(self, device: torch.device) -> None:
        """Move the images."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.flips, self.shifts = self.flips.to(device), self.shifts.to(device)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Draw the flips and shifts of every image for this epoch."""
        draw = torch.Generator().manual_seed(seed + epoch)
        self.flips = (torch.rand(len(self), generator=draw) < 0.5).to(self.device)
        self.shifts = torch.randint(0, 2 * SHIFT_PX + 1, (len(self), 2), generator=draw).to(self.device)

    def __getitems__(self, indices: list[int] | Tensor) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices, device=self.device)
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
    counts = [torch.arange(length, device=images.device) for length in (n, height, width)]
    rows, columns = shifts[:, :1] + counts[1], shifts[:, 1:] + counts[2]  # (N, H), (N, W)
    return padded[counts[0][:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ImageFolders(Dataset):
    """root/train and root/val with one folder per class; pictures are decoded when asked for.

    A training picture that turns unreadable later is named on stderr and replaced by the next one, up to
    `max_bad_share` of them in each process that reads; one more raises ValueError.
    """

    def __init__(self, root: Path, data: Data, train: bool) -> None:
        self.files, self.labels, self.classes = _listed(root, data, train)
        self.num_classes, self.channels = len(self.classes), 3
        self.kind, self.lighting, self.seed = data.kind, data.lighting if train else 0.0, (0, 0)
        most_bad = min(int(data.max_bad_share * len(self.files)), len(self.files) - 1)  # some other one replaces it
        self.bad, self.most_bad = set(), most_bad if train else 0
        size = list(data.image_size)
        crop = [v2.RandomResizedCrop(size, scale=(0.08, 1), antialias=True), v2.RandomHorizontalFlip()]
        augmented = {"crop": crop, "flip": [v2.Resize(size), v2.RandomHorizontalFlip()]}
        self.data, self.varied = data, train and data.augment in augmented
        self.transform = v2.Compose([v2.PILToTensor(), *augmented[data.augment]]) if self.varied else as_judged(data)

    def __len__(self) -> int:
        return len(self.files)

    def to(self, device: torch.device) -> None:
        """Nothing to move: pictures are files."""

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Fix the random draws of this epoch."""
        self.seed = (seed, epoch)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        images, lights, labels = zip(*(self._item(i) for i in indices), strict=True)
        batch = {"image": torch.stack(images), "label": torch.stack(labels)}
        if self.lighting:
            batch["light"] = torch.stack(lights)
        return batch

    def _item(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        while (opened := self._opened(i)) is None:
            i = (i + 1) % len(self)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash((*self.seed, i)))  # torch.manual_seed would seed GPUs too
            weights = torch.randn(3) * self.lighting * torch.tensor(EIGENVALUES)
            image = self.transform(opened)
        return image, torch.tensor(EIGENVECTORS) @ weights, self.labels[i]

    def _opened(self, i: int) -> Image.Image | None:
        """The picture i; None, with a warning, for one that cannot be read. Raises ValueError for more of those than
        may be replaced."""
        try:
            opened = read(self.files[i], exif_rotation=True)
            if not self.varied:
                _check_thin(opened, self.files[i], self.data)
        except ValueError as error:
            self.bad.add(i)
            if len(self.bad) > self.most_bad:
                raise ValueError(
                    f"{error}; that makes {len(self.bad)}, and {self.most_bad} of {len(self)} may be replaced "
                    "(data.max_bad_share)"
                ) from error
            log.warning(f"{error}; replaced by the next one ({len(self.bad)} of {self.most_bad})")
            return None
        return opened
