// The pictures of the next question: chosen, dropped or pasted, uploaded once, shown as the model will see them.
import { ServerError, upload } from "./api.js";
import { $, made } from "./elements.js";
import { figure } from "./tiles.js";

export class Pictures {
  #chosen = []; // {file, url, seen, name, detail}
  #steps = []; // under way, one after the other; each tells whether nothing was refused
  #clearings = 0;

  // `allowed` says what the server takes; `report` is told of every refusal of a step, and of none.
  constructor(settings, allowed, report) {
    this.settings = settings;
    this.allowed = allowed;
    this.report = report;
  }

  get count() {
    return this.#chosen.length;
  }

  // When all that is under way is done: whether nothing of it was refused.
  async added() {
    let good = true;
    while (this.#steps.length) good = (await Promise.all(this.#steps)).every(Boolean) && good;
    return good;
  }

  // What was chosen; the list is empty afterwards.
  take() {
    const taken = this.#chosen;
    this.#chosen = [];
    this.#draw();
    return taken;
  }

  put(taken) {
    this.#chosen.unshift(...taken);
    this.#draw();
  }

  // Forget what was chosen, and what is on its way.
  clear() {
    this.#clearings += 1;
    for (const { url } of this.take()) URL.revokeObjectURL(url);
    $("adding").textContent = "";
  }

  add(files) {
    const clearings = this.#clearings;
    return this.#step(async (refused) => {
      const left = [];
      for (const [index, file] of files.entries()) {
        if (clearings !== this.#clearings) return;
        if (this.#chosen.length >= this.allowed().room) {
          left.push(file.name || "the pasted one");
          continue;
        }
        $("adding").textContent = files.length > 1 ? `adding ${index + 1} of ${files.length} …` : "adding …";
        try {
          const one = await this.#measured(file);
          if (clearings !== this.#clearings) return;
          this.#chosen.push(one);
          this.#draw();
        } catch (error) {
          refused.push(Object.assign(error, { picture: file.name || "the pasted one" }));
        }
      }
      if (left.length) refused.push(tooMany(left, this.allowed().pictures));
    });
  }

  // Measure again, as another model or detail sees them. One that can't be stays as it was.
  refresh() {
    return this.#step(async (refused) => {
      for (const one of this.#chosen) {
        try {
          Object.assign(one, await this.#seen(one.file));
        } catch (error) {
          refused.push(Object.assign(error, { picture: one.name }));
        }
      }
      this.#draw();
    });
  }

  #step(work) {
    const clearings = this.#clearings;
    const before = this.#steps.at(-1);
    const step = (async () => {
      await before;
      const refused = [];
      await work(refused);
      this.#steps.shift();
      if (clearings !== this.#clearings) return true;
      $("adding").textContent = "";
      this.report(refused);
      return !refused.length;
    })();
    this.#steps.push(step);
    return step;
  }

  async #measured(file) {
    const most = this.allowed().picture_bytes;
    if (file.size > most) {
      const [size, limit] = [file.size, most].map((bytes) => `${+(bytes / 2 ** 20).toFixed(1)} MiB`);
      throw new ServerError(`expected a picture of at most ${limit}; got ${size}; scale it down`);
    }
    return { file, ...(await this.#seen(file)), url: URL.createObjectURL(file), name: file.name || "picture" };
  }

  async #seen(file) {
    const { model, detail } = this.settings;
    const seen = await upload(file, model, detail);
    document.dispatchEvent(new CustomEvent("uploaded", { detail: seen.id })); // a turn before may have missed it
    return { seen, detail };
  }

  #draw() {
    $("pictures").replaceChildren(...this.#chosen.map((one) => {
      const remove = made("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${one.name}` });
      remove.addEventListener("click", () => {
        this.#chosen = this.#chosen.filter((other) => other !== one);
        URL.revokeObjectURL(one.url);
        this.report([]);
        this.#draw();
        $("question").focus();
      });
      return made("li", {}, figure(one.url, one.seen, one.name), remove);
    }));
  }
}

function tooMany(left, most) {
  const shown = left.length > 6 ? [...left.slice(0, 5), `${left.length - 5} others`] : left;
  return new ServerError(
    `expected at most ${most} pictures in a conversation; got more, without which it stays: ${shown.join(", ")}; ` +
      "take some away, or start a new conversation",
  );
}
