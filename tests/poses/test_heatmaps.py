"""What bnc_repro.pictures claims of files and crops; heatmaps are tested in test_keypoints.py."""

import numpy as np
import pytest
from PIL import Image

from bnc_repro.images.pictures import read
from bnc_repro.poses.crops import Augmentation, Shelf, crop_matrix, vary, warp
from bnc_repro.poses.people import cut_box


def damaged(folder, kind):
    path = folder / f"{kind}.jpg"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("cut", "cut_png"):
        path = path.with_suffix(".png" if kind == "cut_png" else ".jpg")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-600])
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "is missing: copy the data set again"),
        ("empty", "is empty .0 bytes.: copy it again"),
        ("text", "is not a picture that Pillow can read: copy it again"),
        ("folder", "is not a file: remove it"),
        ("cut", "is damaged or cut off .*: copy it again"),
        ("cut_png", "is damaged or cut off .*: copy it again"),
    ],
)
def test_unreadable_files_are_named_with_the_remedy(tmp_path, kind, sentence):
    """Missing, empty, cut off, foreign: one sentence with the file's name and what to do."""
    path = damaged(tmp_path, kind)
    with pytest.raises(ValueError, match=sentence) as caught:
        read(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    """Grey, palette, transparent and printers' pictures are read as RGB of the same size."""
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (7, 5)).save(path)
    picture = read(path)
    assert (picture.mode, picture.size) == ("RGB", (7, 5))


def test_eps_is_never_handed_to_another_program(tmp_path, monkeypatch):
    """Pillow would run Ghostscript: refused by its content, whatever its name."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments, **options: pytest.fail("Ghostscript ran"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    path = (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg is an EPS, which another program would have to run: convert"):
        read(path)


@pytest.mark.parametrize("side", [8193, 20_000])
def test_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch, side):
    """A file of some KB that claims more than 2^26 px, and one beyond Pillow's own limit: refused by its header."""
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    monkeypatch.setattr(Image.Image, "convert", lambda *arguments: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"bomb\.png has .*more than 67,108,864.*: make it smaller"):
        read(path)


def test_exif_rotation_only_on_request(tmp_path):
    """Annotations are in stored pixels, so a turned photograph stays as stored unless asked."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").size == (8, 4)
    assert read(tmp_path / "a.jpg", exif_rotation=True).size == (4, 8)


def test_shelf_reads_once_and_keeps_to_its_limit(tmp_path):
    """A kept picture survives its file; nothing is kept with a limit of 0."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    kept, passing = Shelf(1), Shelf(0)
    kept.read(str(path)), passing.read(str(path))
    path.unlink()
    assert kept.read(str(path)).size == (8, 8)
    with pytest.raises(ValueError, match="missing"):
        passing.read(str(path))


def blob(size, x, y, radius):
    across, down = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    bell = 255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * radius**2))
    return Image.fromarray(np.repeat(bell[..., None], 3, 2).round().astype(np.uint8))


def centroid(picture):
    grey = np.asarray(picture)[..., 0].astype(float)
    across, down = np.meshgrid(np.arange(grey.shape[1]), np.arange(grey.shape[0]))
    return np.array([(grey * across).sum(), (grey * down).sum()]) / grey.sum()


@pytest.mark.parametrize("antialias", [True, False])
def test_a_crop_shows_each_point_where_its_matrix_says(antialias):
    """A soft dot, over turns, flips and scales (shrinking up to 4 times): within 0.05 crop px."""
    rng, seen = np.random.default_rng(0), 0
    while seen < 20:
        x, y = rng.uniform(150, 250, 2)
        matrix = crop_matrix(
            tuple(rng.uniform(170, 230, 2)),
            rng.uniform(120, 380),
            (128, 96),
            rng.uniform(-90, 90),
            bool(rng.integers(2)),
        )
        scale = np.hypot(*matrix[:, 0])
        picture = blob((400, 400), x, y, 2.5 * max(scale, 1))
        place = np.linalg.solve(matrix[:, :2], np.array([x, y]) - matrix[:, 2])
        if not ((place > 14).all() and (place < (82, 114)).all()):
            continue
        seen += 1
        found = centroid(warp(picture, matrix, (128, 96), antialias))
        assert np.abs(found - place).max() < 0.05


def test_crop_matrix_has_one_scale_and_the_stated_middle():
    """Unbiased: pixel (W - 1) / 2 shows the centre and outer pixel centres span width_px. Classic: W / 2."""
    matrix = crop_matrix((50, 60), 94, (128, 96))
    np.testing.assert_allclose(matrix @ (47.5, 63.5, 1), (50, 60))
    np.testing.assert_allclose(matrix @ (95, 0, 1) - matrix @ (0, 0, 1), (94, 0), atol=1e-12)
    np.testing.assert_allclose(matrix[:, :2], np.eye(2) * 94 / 95, atol=1e-12)
    turned = crop_matrix((50, 60), 94, (128, 96), degrees=30)
    np.testing.assert_allclose(turned[:, :2].T @ turned[:, :2], np.eye(2) * (94 / 95) ** 2, atol=1e-12)


def test_a_flipped_crop_is_the_mirror_image():
    """Flip in the matrix and flip of the finished crop are the same pixels."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    upright, mirrored = (
        warp(picture, crop_matrix((40, 40), 50, (64, 48), 20, flip), (64, 48)) for flip in (False, True)
    )
    apart = np.abs(np.asarray(upright)[:, ::-1].astype(int) - np.asarray(mirrored).astype(int))
    assert apart.max() <= 1


def test_cut_box_by_hand():
    """The part inside the picture; nothing left is a side of 0 or less."""
    assert cut_box((-5, 10, 20, 100), 50, 40) == (0, 10, 15, 30)
    assert min(cut_box((60, 10, 20, 20), 50, 40)[2:]) <= 0
    assert min(cut_box((-30, 10, 20, 20), 50, 40)[2:]) <= 0


def test_vary_by_hand():
    """Cuts at one and two deviations; chances; a half body is 1.2 times its joints' box, given enough."""
    rules = Augmentation()
    box, upper = np.array([0.0, 0, 10, 20]), np.arange(12) < 7
    joints = np.stack((np.arange(12.0), np.arange(12.0) * 2), 1)
    same, scale, degrees, flip = vary(rules, (9, 9, 0.1, 0.1, 0.9, 0), box, joints, upper)
    assert (scale, degrees, flip) == (1.35, 80.0, True)
    np.testing.assert_array_equal(same, box)
    assert vary(rules, (-9, 9, 0.9, 0.9, 0.9, 0), box, joints, upper)[1:] == (0.65, 0.0, False)
    half = vary(rules, (0, 0, 0.9, 0.9, 0.1, 0.1), box, joints, upper)[0]
    np.testing.assert_allclose(half, (3 - 3.6, 6 - 7.2, 7.2, 14.4))
    few = vary(rules, (0, 0, 0.9, 0.9, 0.1, 0.1), box, joints[:8], upper[:8])[0]
    np.testing.assert_array_equal(few, box)
