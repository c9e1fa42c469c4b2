// The pictures of the next question: chosen, dropped or pasted, uploaded once, shown as the model will see them.
import { ServerError, upload } from "./api.js";
import { $, made } from "./elements.js";
import { figure } from "./tiles.js";

const LARGEST = 20 * 2 ** 20;

export class Pictures {
  #chosen = []; // {file, url, seen, name, item}

  constructor(settings, fail) {
    this.settings = settings;
    this.fail = fail;
    this.adding = Promise.resolve();
  }

  // What was chosen so far; the list is empty afterwards.
  async take() {
    await this.adding;
    const taken = this.#chosen;
    this.#chosen = [];
    $("pictures").replaceChildren();
    return taken;
  }

  put(taken) {
    for (const one of taken) this.#show(one);
  }

  add(files) {
    for (const file of files) this.adding = this.adding.then(() => this.#add(file));
    return this.adding;
  }

  // Measure again, as another model or detail sees them.
  refresh() {
    const before = this.#chosen;
    this.#chosen = [];
    $("pictures").replaceChildren();
    return this.add(before.map((one) => one.file));
  }

  async #add(file) {
    try {
      if (file.size > LARGEST) {
        const size = (file.size / 2 ** 20).toFixed(1);
        throw new ServerError(`expected a picture of at most 20 MiB; got ${file.name} with ${size} MiB; scale it down`);
      }
      const seen = await upload(file, this.settings.model, this.settings.detail);
      this.#show({ file, seen, url: URL.createObjectURL(file), name: file.name || "picture" });
    } catch (error) {
      this.fail(error);
    }
  }

  #show(one) {
    const remove = made("button", { type: "button", textContent: `Remove ${one.name}` });
    const item = made("li", {}, figure(one.url, one.seen, one.name), remove);
    remove.addEventListener("click", () => {
      this.#chosen = this.#chosen.filter((other) => other !== one);
      item.remove();
      $("question").focus();
    });
    this.#chosen.push(one);
    $("pictures").append(item);
  }
}
