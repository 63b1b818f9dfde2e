"""A whole slide of painted tissue, and features as TRIDENT stores them."""

from pathlib import Path

import numpy as np

from samil_lite.arguments import at_least, checked
from samil_lite.data.synthetic.features import one_slide
from samil_lite.extras import from_extra


@checked(width=at_least(1), height=at_least(1), seed=at_least(0))
def write_slide(path: str | Path, width: int = 1200, height: int = 900, seed: int = 0) -> Path:
    """Writes a synthetic whole slide: a tiled TIFF that OpenSlide opens, with a pink oval on pale glass. Not real data.

    The right half of the oval is darker and more purple, so that a map has something to show.

    Args:
        path: of the file, ending in `.tif` or `.tiff`.
        width: in pixels.
        height: in pixels.
        seed: the same seed gives the same pixels.

    Returns:
        The path.
    """
    with from_extra("slides", "write_slide needs scikit-image"):
        from tifffile import imwrite
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    oval = ((x / width - 0.5) / 0.42) ** 2 + ((y / height - 0.5) / 0.38) ** 2 < 1
    colours = np.where((x > width / 2)[..., None], [150, 70, 160], [225, 150, 185])
    pixels = np.where(oval[..., None], colours, [244, 243, 244]) + rng.randint(-12, 13, size=(height, width, 1))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    imwrite(path, np.clip(pixels, 0, 255).astype(np.uint8), tile=(256, 256), photometric="rgb")
    return Path(path)


@checked(n_slides=at_least(1), n_patients=at_least(1), width=at_least(1), mean_size=at_least(2), seed=at_least(0))
def write_trident(
    folder: str | Path,
    n_slides: int = 60,
    n_patients: int = 34,
    width: int = 16,
    mean_size: int = 40,
    shift: float = 1.5,
    seed: int = 0,
) -> Path:
    """Writes a synthetic stand-in for features that TRIDENT extracted, and a table of patients. Not real data.

    The first patients have two slides. Slides were scanned at 20× and 40× in turn, and patches are 256 pixels at 20×,
    so they take 256 or 512 pixels of a slide's finest level, as `patch_size_level0` of each file says. In a slide
    labelled "tumor" one patch in eight, a group, has its first four features shifted. Files:
    `20x_256px_0px_overlap/features_uni_v1/SLIDE.h5`, `labels.csv` with slide_id, label, patient; `planted.csv` with
    slide_id and row of each shifted patch.

    Args:
        folder: where to write.
        n_slides: number of slides.
        n_patients: number of patients, from half as many to as many.
        width: number of features, at least 4.
        mean_size: patches in a slide; they vary from half of it to one and a half times.
        shift: of the planted patches, in standard deviations.
        seed: the same seed gives the same numbers.

    Returns:
        The folder.
    """
    if not 1 <= n_patients <= n_slides <= 2 * n_patients or width < 4:
        raise ValueError(
            f"n_slides, n_patients, width: expected one or two slides for each patient and at least 4 features, got "
            f"{n_slides}, {n_patients}, {width}"
        )
    with from_extra("features", "write_trident needs h5py"):
        import h5py
    rng, place = np.random.RandomState(seed), Path(folder) / "20x_256px_0px_overlap" / "features_uni_v1"
    place.mkdir(parents=True, exist_ok=True)
    rows, planted = ["slide_id,label,patient"], ["slide_id,instance"]
    for s in range(n_slides):
        patient, side = s % n_patients, 256 * (1 + s % 2)
        coords, features, chosen = one_slide(rng, mean_size, side, width, shift if patient % 2 else None)
        planted += [f"slide_{s + 1},{row}" for row in chosen]
        with h5py.File(place / f"slide_{s + 1}.h5", "w") as file:
            file["features"] = features
            file["coords"] = coords
            about = {"patch_size": 256, "patch_size_level0": side, "target_magnification": 20, "overlap": 0}
            about["level0_magnification"] = 20 * side // 256
            file["coords"].attrs.update(about)
        rows.append(f"slide_{s + 1},{'tumor' if patient % 2 else 'normal'},patient_{patient + 1}")
    (Path(folder) / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (Path(folder) / "planted.csv").write_text("\n".join(planted) + "\n", encoding="utf-8")
    return Path(folder)
