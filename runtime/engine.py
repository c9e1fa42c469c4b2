"""The engine: owns the vision session and the language model, and turns pictures into embeddings."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from .bundle.bundle import Bundle
from .bundle.manifest import Manifest
from .callbacks import Embeddings, Progress
from .encode_ahead import Encoding, OnRows
from .errors import BundleError, BusyError, OptionError
from .language.kv_cache import KvCache
from .options import LoadOptions
from .pictures.encoded import EncodedImage
from .pictures.pack import pack, positions_ready
from .pictures.picture import ImageSource, Picture, load_picture
from .pictures.tiles import Layout, cut_tiles, lay_out, normalise
from .pictures.tower import VisionEncoder
from .processes.isolated_llm import LlmProcess, open_llm
from .processes.repacking import settle_repacking
from .prompts.segments import ImageSegment

ImageInput = ImageSource | Picture | EncodedImage
"""What a question may be about: a path, file bytes, a Pillow image, or one encoded before."""


class Engine:
    """A loaded bundle: vision session, language model and what its cache holds. One request at a time."""

    def __init__(self, bundle: Bundle, options: LoadOptions, process: LlmProcess | None = None) -> None:
        began = time.perf_counter()
        self.bundle = bundle
        self.options = options = settle_repacking(options)
        self._newline = bundle.newline()
        self._answering = threading.Lock()
        self._encoded: OrderedDict[str, EncodedImage] = OrderedDict()
        manifest = bundle.manifest
        self.vision = VisionEncoder(
            bundle.vision_path,
            dim=manifest.vision.dim,
            geometry=manifest.geometry,
            threads=options.threads or None,
            providers=options.providers or None,
            fingerprint=bundle.vision_fingerprint,
        )
        template = manifest.template
        self.llm = open_llm(
            bundle.llm_path,
            options=options,
            space_prefixed=template.space_prefix != "none",
            stop_tokens=[template.special_tokens[one] for one in template.stop_tokens],
            process=process,
        )
        self.cache = KvCache(self.llm, batch=options.batch)
        self._check_llm(manifest)
        self.load_seconds = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the session and the model. Safe to call twice."""
        self.llm.close()
        self.vision.close()
        self._encoded.clear()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def overlaps(self) -> bool:
        """Whether tiles are encoded while the language model reads: only where both do not need the cores."""
        return not (self.vision.choice.on_cpu and self.llm.on_cpu)

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self.options.context or self.llm.context_limit

    def encode_image(
        self,
        source: ImageInput,
        *,
        overview_only: bool = False,
        on_progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> EncodedImage:
        """Encode a picture once, to be asked about many times.

        ``overview_only`` leaves the grid tiles out, which shows what they are worth.
        ``on_progress`` hears (tiles done, all). Raises ImageError, Cancelled, BusyError.
        """
        with self.answering():
            opened = self.open_image(source)
            if isinstance(opened, EncodedImage):
                return opened
            return self._encode(opened, overview_only, on_progress, cancelled)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Hold the model for one request. Raises :class:`BusyError` while another one runs."""
        if not self._answering.acquire(blocking=False):
            raise BusyError(
                expected="one request at a time",
                got="a second one while an answer is under way",
                fix="finish or close the first answer's iterator",
            )
        try:
            yield
        finally:
            self._answering.release()

    def open_image(self, source: ImageInput) -> Picture | EncodedImage:
        """Load what is not loaded yet; refuse a picture encoded for a model of another width."""
        if isinstance(source, EncodedImage):
            if source.embeddings.shape[1] != self.llm.dim:
                raise OptionError(
                    expected=f"a picture encoded for this model (width {self.llm.dim})",
                    got=f"width {source.embeddings.shape[1]}",
                    fix="encode the picture again with this model",
                )
            return source
        return source if isinstance(source, Picture) else load_picture(source)

    def image_segment(self, image: Picture | EncodedImage) -> ImageSegment:
        """The place of a picture in a prompt, known before it is encoded."""
        if isinstance(image, EncodedImage):
            return image.segment
        layout = lay_out(image.size, self.manifest.geometry)
        return ImageSegment(image.digest, layout.image_tokens)

    def encoding(
        self,
        images: Sequence[Picture | EncodedImage],
        *,
        on_progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> Encoding:
        """Encode what is not encoded yet: at once, or where :attr:`overlaps` says so while it is read."""

        def encode(
            picture: Picture,
            on_rows: OnRows | None,
            on_progress: Progress | None,
            cancelled: Callable[[], bool] | None,
        ) -> EncodedImage:
            return self._encode(picture, False, on_progress, cancelled, on_rows)

        return Encoding(images, encode, on_progress=on_progress, cancelled=cancelled, overlapped=self.overlaps)

    def _encode(
        self,
        picture: Picture,
        overview_only: bool,
        on_progress: Progress | None,
        cancelled: Callable[[], bool] | None,
        on_rows: OnRows | None = None,
    ) -> EncodedImage:
        key = picture.digest + (":overview" if overview_only else "")
        if key in self._encoded:
            self._encoded.move_to_end(key)
            return self._encoded[key]
        layout = lay_out(picture.size, self.manifest.geometry, overview_only=overview_only)
        encoded = self._encode_tiles(picture, key, layout, on_progress, cancelled, on_rows)
        self._encoded[key] = encoded
        while len(self._encoded) > self.options.images_kept:
            self._encoded.popitem(last=False)
        return encoded

    def _encode_tiles(
        self,
        picture: Picture,
        key: str,
        layout: Layout,
        on_progress: Progress | None,
        cancelled: Callable[[], bool] | None,
        on_rows: OnRows | None,
    ) -> EncodedImage:
        began = time.perf_counter()
        geometry = self.manifest.geometry
        pixels = normalise(cut_tiles(picture.image, layout, geometry), geometry)

        def hand_over(features: Embeddings, tiles: int) -> None:
            if on_rows is not None and tiles < layout.tiles:
                early = pack(features, self._newline, layout=layout, geometry=geometry)
                on_rows(early, positions_ready(tiles, layout, geometry))

        features = self.vision.encode(pixels, on_progress=on_progress, on_features=hand_over, cancelled=cancelled)
        embeddings = pack(features, self._newline, layout=layout, geometry=geometry)
        return EncodedImage(embeddings, key, layout, picture.name, time.perf_counter() - began)

    def _check_llm(self, manifest: Manifest) -> None:
        """Refuse a GGUF that does not belong to the vision part, and a context beyond the model's."""
        if self.llm.dim != manifest.vision.dim:
            self.close()
            raise BundleError(
                expected=f"a language model of width {manifest.vision.dim}",
                got=f"width {self.llm.dim}",
                fix="export the bundle again",
            )
        if self.options.context > self.llm.context_limit:
            self.close()
            raise OptionError(
                expected=f"a context of at most {self.llm.context_limit} positions (the model's limit)",
                got=str(self.options.context),
                fix="choose a smaller context",
            )
