// Pictures on their way in: dropped, pasted or chosen, uploaded once, and shown in the tray.

import { upload, Failure } from "./api.js";
import { element, find } from "./dom.js";
import { describeLayout, drawOverlay } from "./overlay.js";

const LARGEST = 20 * 2 ** 20; // bytes; the server refuses more, and says so only after they were sent

/** The pictures of the next question. */
export class Tray {
  #pictures = [];
  #shown = null;
  #settings;
  #onError;

  constructor(settings, onError) {
    this.#settings = settings;
    this.#onError = onError;
    this.#listen();
  }

  get pictures() {
    return this.#pictures;
  }

  /** Take files; what is not a picture is said, and the others are taken all the same. */
  async add(files) {
    for (const file of files) {
      try {
        await this.#take(file);
      } catch (error) {
        this.#onError(error);
      }
    }
  }

  clear() {
    this.#pictures = [];
    this.#shown = null;
    this.#draw();
  }

  /** Upload again what the server has dropped meanwhile, or what is to be seen with another detail. */
  async refresh(pictures = this.#pictures) {
    for (const picture of pictures) {
      picture.layout = await upload(picture.blob, this.#settings.detail, this.#settings.model);
    }
    this.#draw();
  }

  async #take(file) {
    const name = file.name || "pasted picture";
    if (file.size > LARGEST) {
      throw new Failure({
        message: "too large",
        expected: `a picture of at most ${LARGEST / 2 ** 20} MiB`,
        got: `${name} of ${(file.size / 2 ** 20).toFixed(0)} MiB`,
        fix: "make it smaller, or save it as JPEG",
      });
    }
    const layout = await upload(file, this.#settings.detail, this.#settings.model);
    const picture = { name, blob: file, url: URL.createObjectURL(file), layout };
    this.#pictures.push(picture);
    this.#shown = picture;
    this.#draw();
  }

  #remove(picture) {
    this.#pictures = this.#pictures.filter((other) => other !== picture);
    if (this.#shown === picture) this.#shown = this.#pictures.at(-1) ?? null;
    this.#draw();
    find("question").focus();
  }

  #draw() {
    find("tray").replaceChildren(...this.#pictures.map((picture) => this.#thumbnail(picture)));
    find("tiles").hidden = this.#shown === null;
    if (this.#shown === null) return;
    find("overlay").replaceChildren(drawOverlay(this.#shown.url, this.#shown.layout, this.#shown.name));
    find("layout").textContent = describeLayout(this.#shown.layout);
  }

  #thumbnail(picture) {
    const show = () => {
      this.#shown = picture;
      this.#draw();
    };
    return element(
      "li",
      { class: picture === this.#shown ? "shown" : null },
      element("button", { type: "button", class: "thumbnail", title: `Show the tiles of ${picture.name}`, click: show },
        element("img", { src: picture.url, alt: picture.name })),
      element("button", { type: "button", class: "remove", "aria-label": `Remove ${picture.name}`, click: () => this.#remove(picture) }, "×"),
    );
  }

  #listen() {
    find("choose").addEventListener("click", () => find("file").click());
    find("file").addEventListener("change", (event) => {
      this.add([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    });
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      this.add([...event.dataTransfer.files]);
    });
    document.addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (files.length) {
        event.preventDefault();
        this.add(files);
      }
    });
  }
}

/** A small data URL of a picture, to be kept over a reload; null where the browser can't show it. */
export async function thumbnailOf(picture, side = 96) {
  try {
    const bitmap = await createImageBitmap(picture.blob);
    const scale = side / Math.max(bitmap.width, bitmap.height);
    const drawing = element("canvas", { width: Math.max(1, bitmap.width * scale), height: Math.max(1, bitmap.height * scale) });
    drawing.getContext("2d").drawImage(bitmap, 0, 0, drawing.width, drawing.height);
    return drawing.toDataURL("image/jpeg", 0.8);
  } catch {
    return null;
  }
}
