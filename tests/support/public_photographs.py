"""Public photographs out of the wheels of scikit-image and scikit-learn, and copies of them with known origin."""

from __future__ import annotations

import hashlib
import io
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CACHE = Path(os.environ.get("LLAVA_EDGE_TEST_CACHE", Path.home() / ".cache" / "llava-edge" / "tests"))
PACKAGES = {
    "scikit-image==0.26.0": (
        "scikit_image-0.26.0-*.whl",
        "skimage/data/",
        ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "ihc.png",
         "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"),
    ),
    "scikit-learn==1.9.1": ("scikit_learn-1.9.1-*.whl", "sklearn/datasets/images/", ("china.jpg", "flower.jpg")),
}  # fmt: skip
"""Requirement to the wheel's name, the folder in it and the pictures. The motorcycles are one scene from two places."""
DIGEST = "1c2f21753df3f92c"
"""The first digits of SHA-256 over all pictures in that order."""


def photographs() -> dict[str, bytes]:
    """The picture files by name; skips where no registry has them."""
    found: dict[str, bytes] = {}
    for requirement, (wheel, folder, names) in PACKAGES.items():
        with zipfile.ZipFile(_wheel(requirement, wheel)) as archive:
            found |= {name: archive.read(folder + name) for name in names}
    digest = hashlib.sha256(b"".join(found.values())).hexdigest()
    assert digest.startswith(DIGEST), digest
    return found


def _wheel(requirement: str, name: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    if not list(CACHE.glob(name)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            subprocess.run([*command, requirement], cwd=CACHE, check=True, capture_output=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{requirement} can't be fetched: {error}")
    return next(CACHE.glob(name))


def plant(folder: Path, files: dict[str, bytes], *, seed: int = 0) -> dict[str, str]:
    """Write each picture with a copy, a re-encoding, a halving and a crop of it; the kind of each that was planted."""
    random = np.random.default_rng(seed)
    kinds: dict[str, str] = {}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        stem, suffix = name.rsplit(".", 1)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        (folder / f"{stem}~copy.{suffix}").write_bytes(data)
        image.save(folder / f"{stem}~encoded.jpg", quality=int(random.integers(35, 90)))
        image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(folder / f"{stem}~half.png")
        cropped(image, float(random.uniform(0.8, 0.97)), random).save(folder / f"{stem}~crop.png")
        kinds |= {f"{stem}~{kind}": kind for kind in ("copy", "encoded", "half", "crop")}
    return kinds


def cropped(image: Image.Image, share: float, random: np.random.Generator) -> Image.Image:
    """A crop of that share of the area, from anywhere."""
    width, height = (math.ceil(one * math.sqrt(share)) for one in image.size)
    left, top = int(random.integers(0, image.width - width + 1)), int(random.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))
