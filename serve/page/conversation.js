// The turns: what is shown of them, what is sent of them, and what a reload brings back.
import { layout, stream, upload } from "./api.js";
import { asCurl, asPython } from "./copying.js";
import { $, made } from "./elements.js";
import { describe, figure } from "./tiles.js";

const KEPT = "conversation";

export class Conversation {
  #turns = []; // {role, text, pictures: [{id, name, seen, file?, url?}]}

  constructor(settings) {
    this.settings = settings;
  }

  clear() {
    this.#turns = [];
    $("turns").replaceChildren();
    this.#keep();
  }

  restore() {
    try {
      this.#turns = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    } catch {
      this.#turns = [];
    }
    for (const turn of this.#turns) this.#show(turn);
  }

  // Ask, telling `progress` of what is done. Throws what goes wrong; the question is `kept` where some answer came.
  async ask(text, pictures, signal, progress) {
    const turn = {
      role: "user",
      text,
      pictures: pictures.map(({ seen, name, file, url }) => ({ id: seen.id, name, seen, file, url })),
    };
    this.#turns.push(turn);
    const shown = this.#show(turn);
    const answer = { role: "assistant", text: "", pictures: [] };
    const said = this.#show(answer);
    let failed = null;
    let body;
    try {
      body = this.#request();
      await this.#receive(body, signal, progress, answer, said);
    } catch (error) {
      if (!answer.text) {
        this.#turns = this.#turns.filter((one) => one !== turn);
        shown.element.remove();
        said.element.remove();
        throw error;
      }
      said.note(error.name === "AbortError" ? "stopped" : "cut off");
      if (error.name !== "AbortError") failed = Object.assign(error, { kept: true });
    }
    if (this.#turns.includes(turn)) {
      this.#turns.push(answer);
      this.#copies(said, answer, body);
      this.#keep();
    }
    if (failed) throw failed;
  }

  async #receive(body, signal, progress, answer, said, again = true) {
    try {
      for await (const chunk of stream(body, signal)) {
        if (chunk.encode_progress) progress("tile", chunk.encode_progress.tiles_done, chunk.encode_progress.tiles);
        if (chunk.prompt_progress) progress("position", chunk.prompt_progress.processed, chunk.prompt_progress.total);
        const choice = chunk.choices[0];
        if (choice?.delta.content) {
          answer.text += choice.delta.content;
          said.text.append(choice.delta.content);
          progress("answer", 0, 0);
        }
        if (chunk.timings) said.note(statistics(chunk, choice.finish_reason));
        for (const warning of chunk.warnings ?? []) said.note(warning);
      }
    } catch (error) {
      if (error.code !== "picture_not_found" || !again) throw error;
      await this.#uploadAgain(); // an upload is kept for an hour
      await this.#receive(body, signal, progress, answer, said, false);
    }
  }

  async #uploadAgain() {
    for (const picture of this.#turns.flatMap((turn) => turn.pictures)) {
      if (picture.file) await upload(picture.file, this.settings.model, this.settings.detail);
    }
  }

  #request() {
    const { model, detail, temperature, maxTokens, seed, schema } = this.settings;
    const body = { model, messages: this.#turns.map((turn) => message(turn, detail)), temperature, max_tokens: maxTokens };
    if (seed !== null) body.seed = seed;
    if (schema !== null) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
    return { ...body, stream: true, return_progress: true, stream_options: { include_usage: true } };
  }

  #show(turn) {
    const text = made("p", { className: "text", textContent: turn.text });
    const title = turn.role === "user" ? "You" : "Answer";
    const element = made("article", { className: `turn ${turn.role}` }, made("h2", { textContent: title }));
    for (const picture of turn.pictures) element.append(this.#picture(picture));
    element.append(text);
    $("turns").append(element);
    element.scrollIntoView({ block: "nearest" });
    return { element, text, note: (line) => element.append(made("p", { className: "note", textContent: line })) };
  }

  #picture(picture) {
    if (picture.url) return made("div", { className: "seen" }, figure(picture.url, picture.seen, picture.name));
    const drawing = made("img", { className: "tiles", alt: `${picture.name}: ${describe(picture.seen)}` });
    const place = made("div", { className: "seen" }, made("p", { className: "note", textContent: picture.name }));
    layout(picture.id, this.settings.model, this.settings.detail).then(
      () => {
        drawing.src = `/v1/pictures/${picture.id}/tiles.png`;
        place.prepend(drawing);
      },
      () => place.append(made("p", { className: "note", textContent: "no longer on the server: add it again" })),
    );
    return place;
  }

  #copies(said, answer, body) {
    const { stream: _, stream_options: __, return_progress: ___, ...plain } = body;
    const texts = { "Copy text": answer.text, "Copy as curl": asCurl(plain), "Copy as Python": asPython(plain) };
    const buttons = made("p", { className: "buttons" });
    for (const [label, text] of Object.entries(texts)) {
      const button = made("button", { type: "button", textContent: label });
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = label), 1500);
      });
      buttons.append(button);
    }
    said.element.append(buttons);
  }

  #keep() {
    const plain = this.#turns.map(({ role, text, pictures }) => ({
      role,
      text,
      pictures: pictures.map(({ id, name, seen }) => ({ id, name, seen })),
    }));
    sessionStorage.setItem(KEPT, JSON.stringify(plain));
  }
}

function message({ role, text, pictures }, detail) {
  if (!pictures.length) return { role, content: text };
  const parts = pictures.map(({ id }) => ({ type: "image_url", image_url: { url: `picture:${id}`, detail } }));
  return { role, content: text ? [...parts, { type: "text", text }] : parts };
}

function statistics({ timings }, reason) {
  const { prompt_n: read, cache_n: cached, predicted_n: written, predicted_per_second: rate } = timings;
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;
  return [
    `${read + cached} positions, ${cached} cached`,
    `pictures ${seconds(timings.encode_ms)}`,
    `first token after ${seconds(timings.first_token_ms)}`,
    `${written} tokens at ${rate.toFixed(0)}/s`,
    `ended by ${reason}`,
  ].join(" · ");
}
