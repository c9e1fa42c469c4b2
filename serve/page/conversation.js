// The turns so far: as messages for the server, as elements on the page, and kept over a reload.

import { element, find, prose } from "./dom.js";
import { copyButtons } from "./copies.js";
import { thumbnailOf } from "./pictures.js";

const KEY = "llava-edge conversation";

export class Conversation {
  #turns = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  #settings;

  constructor(settings) {
    this.#settings = settings;
    for (const turn of this.#turns) {
      if (!turn.ending) turn.cut = "cut off: the page was left while it was answered";
      this.#show(turn);
    }
  }

  get isEmpty() {
    return this.#turns.length === 0;
  }

  clear() {
    this.#turns = [];
    this.#keep();
    find("conversation").replaceChildren();
  }

  /** The messages of a request that ends in `question` about `pictures`; turns without an answer are left out. */
  messages(question, pictures) {
    const earlier = this.#turns.filter((turn) => turn.answer).flatMap((turn) => [
      { role: "user", content: parts(turn.question, turn.pictures.map(({ id }) => id), turn.detail) },
      { role: "assistant", content: turn.answer },
    ]);
    return [...earlier, { role: "user", content: parts(question, pictures.map(({ layout }) => layout.id), this.#settings.detail) }];
  }

  /** Begin a turn; returns what its answer is written to. */
  async begin(question, pictures, request) {
    const shown = await Promise.all(pictures.map(async (picture) => ({
      id: picture.layout.id, name: picture.name, thumbnail: await thumbnailOf(picture),
    })));
    const turn = { question, pictures: shown, detail: this.#settings.detail, answer: "", request, ending: null, cut: null };
    this.#turns.push(turn);
    this.#keep();
    const view = this.#show(turn);
    return {
      write: (text) => {
        turn.answer += text;
        view.body.textContent = turn.answer;
      },
      end: (ending) => {
        turn.ending = ending;
        this.#finish(turn, view);
      },
      breakOff: (reason) => {
        turn.ending = { finish: "cancel" };
        turn.cut = reason;
        this.#finish(turn, view);
      },
      /** Take the turn back, as if it had not been asked. */
      drop: () => {
        this.#turns = this.#turns.filter((other) => other !== turn);
        view.article.remove();
        this.#keep();
      },
    };
  }

  #show(turn) {
    const body = element("div", { class: "answer" });
    const foot = element("footer");
    const article = element("article", {},
      element("div", { class: "question" },
        ...turn.pictures.map(({ name, thumbnail }) => thumbnail
          ? element("img", { src: thumbnail, alt: name })
          : element("span", { class: "file" }, name)),
        element("p", {}, turn.question)),
      body, foot);
    find("conversation").append(article);
    const view = { article, body, foot };
    if (turn.ending || turn.cut) this.#finish(turn, view);
    article.scrollIntoView({ block: "end" });
    return view;
  }

  #finish(turn, { body, foot }) {
    body.replaceChildren(prose(turn.answer));
    const notes = [turn.cut, turn.ending?.finish === "length" ? "cut off: the longest answer was reached" : null, ...(turn.ending?.warnings ?? [])];
    foot.replaceChildren(
      ...notes.filter(Boolean).map((note) => element("p", { class: "note" }, note)),
      element("p", { class: "statistics" }, statistics(turn.ending)),
      ...(turn.answer ? [copyButtons(turn)] : []),
    );
    this.#keep();
  }

  #keep() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.#turns));
    } catch {
      sessionStorage.removeItem(KEY); // full: a reload forgets this conversation, nothing else
    }
  }
}

function parts(text, ids, detail) {
  const pictures = ids.map((id) => ({ type: "image_url", image_url: { url: `picture:${id}`, detail } }));
  return [...pictures, { type: "text", text }];
}

/** One line: positions and how many of them were known, tokens and their speed, the wait for the first. */
function statistics(ending) {
  const { usage, timings } = ending ?? {};
  if (!usage) return "";
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const line = [`${usage.prompt_tokens} positions (${cached} known)`, `${usage.completion_tokens} tokens`];
  if (timings?.predicted_ms > 0 && timings.predicted_n > 0) {
    line.push(`${(timings.predicted_n / timings.predicted_ms * 1000).toFixed(1)} tokens/s`);
  }
  if (timings?.first_token_ms) line.push(`first after ${(timings.first_token_ms / 1000).toFixed(2)} s`);
  return line.join(", ");
}
