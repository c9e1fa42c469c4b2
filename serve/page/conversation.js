// The turns: what is shown of them, what is sent of them, and what a reload brings back.
import { AnswerText, following } from "./answer.js";
import { drawnTiles, ServerError, stream, upload } from "./api.js";
import { asCurl, asPython, copy } from "./copying.js";
import { $, made } from "./elements.js";
import { speak } from "./speaking.js";
import { describe, figure } from "./tiles.js";

const KEPT = "conversation";

export class Conversation {
  #turns = []; // {role, text, pictures: [{id, name, seen, detail, file?, url?}], notes, options?}
  #answer = null; // the one under way

  constructor(settings) {
    this.settings = settings;
  }

  // How many the turns have together: so many are sent with every question.
  get pictures() {
    return this.#turns.reduce((count, turn) => count + turn.pictures.length, 0);
  }

  clear() {
    for (const { url } of this.#turns.flatMap((turn) => turn.pictures)) URL.revokeObjectURL(url);
    this.#turns = [];
    this.#answer = null;
    $("turns").replaceChildren();
    $("spoken").replaceChildren();
    this.#keep();
  }

  // Show what was kept; gives the question that had no answer yet.
  restore() {
    let kept = {};
    try {
      kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    } catch {
      // what some other page of this address has written
    }
    this.#turns = kept.turns ?? [];
    for (const [index, turn] of this.#turns.entries()) {
      const shown = this.#show(turn);
      for (const note of turn.notes) shown.note(note);
      if (turn.options) this.#copies(shown, turn, this.#body(this.#turns.slice(0, index), turn.options));
    }
    return kept.question ?? "";
  }

  // The page goes: an answer under way stays as far as it came, a question without one goes back into its box.
  leave() {
    if (!this.#answer) return;
    const { turn, answer } = this.#answer;
    if (answer.text) this.#turns.push({ ...answer, notes: ["cut off"] });
    else this.#turns = this.#turns.filter((one) => one !== turn);
    this.#answer = null;
    this.#keep(answer.text ? "" : turn.text);
  }

  // Ask, telling `progress` of what is done. Throws what goes wrong; `kept` where the question is shown, `again` where
  // its answer broke off and it may be asked once more.
  async ask(text, pictures, signal, progress) {
    const turn = { role: "user", text, pictures: pictures.map(({ seen, ...one }) => ({ id: seen.id, seen, ...one })), notes: [] };
    const answer = { role: "assistant", text: "", pictures: [], notes: [] };
    answer.options = this.#options();
    this.#turns.push(turn);
    this.#answer = { turn, answer };
    const shown = this.#show(turn);
    const said = this.#show(answer);
    $("stop").scrollIntoView({ block: "nearest" });
    const body = this.#body(this.#turns, answer.options);
    let failed = null;
    try {
      await this.#receive(body, signal, progress, answer, said);
    } catch (error) {
      failed = error;
    }
    said.text.end();
    const forgotten = this.#answer?.answer !== answer; // there is a new conversation, or the page went
    if (!forgotten) this.#answer = null;
    if (failed && !answer.text) {
      this.#turns = this.#turns.filter((one) => one !== turn);
      shown.element.remove();
      said.element.remove();
      throw Object.assign(failed, { kept: forgotten });
    }
    if (failed) said.note(failed.name === "AbortError" ? "stopped" : "cut off");
    if (!forgotten) {
      this.#turns.push(answer);
      this.#copies(said, answer, body);
      this.#keep();
    }
    if (failed && failed.name !== "AbortError") throw Object.assign(failed, { kept: true, again: !forgotten });
  }

  async #receive(body, signal, progress, answer, said, again = true) {
    const streamed = { ...body, stream: true, return_progress: true, stream_options: { include_usage: true } };
    try {
      for await (const chunk of stream(streamed, signal)) {
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
    const { model } = this.settings;
    for (const picture of this.#turns.flatMap((turn) => turn.pictures)) {
      if (picture.file) await upload(picture.file, model, picture.detail);
      else await drawnTiles(picture.id, model, picture.detail).catch((error) => { // a reload keeps no files
        throw error.code === "picture_not_found" ? lost(picture) : error;
      });
    }
  }

  #options() {
    const { model, temperature, maxTokens, seed, schema } = this.settings;
    const options = { model, temperature, max_tokens: maxTokens };
    if (seed !== null) options.seed = seed;
    if (schema !== null) options.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
    return options;
  }

  #body(turns, { model, ...others }) {
    return { model, messages: turns.map(message), ...others };
  }

  #show(turn) {
    const answering = turn.role === "assistant";
    const text = answering ? new AnswerText(turn.text) : null;
    const element = made("article", { className: `turn ${turn.role}` }, made("h2", { textContent: answering ? "Answer" : "You" }));
    for (const [index, picture] of turn.pictures.entries()) {
      element.append(this.#picture(picture, turn.pictures.length > 1 ? `picture ${index + 1}: ` : ""));
    }
    element.append(text?.element ?? made("p", { className: "text", textContent: turn.text }));
    $("turns").append(element);
    element.scrollIntoView({ block: "nearest" });
    const note = (line) => {
      if (!turn.notes.includes(line)) turn.notes.push(line);
      following(() => element.append(made("p", { className: "note", textContent: line })));
    };
    return { element, text, note };
  }

  #picture(picture, number) {
    const name = `${number}${picture.name}`;
    if (picture.url) return made("div", { className: "seen" }, figure(picture.url, picture.seen, name));
    const drawing = made("img", { className: "tiles", alt: `${name}: ${describe(picture.seen)}` });
    const place = made("div", { className: "seen" }, made("p", { className: "note", textContent: name }));
    const draw = () => drawnTiles(picture.id, this.settings.model, picture.detail).then(
      (address) => {
        drawing.src = address;
        place.prepend(drawing);
        missing.remove();
        document.removeEventListener("uploaded", found);
      },
      () => {
        place.append(missing);
        document.addEventListener("uploaded", found);
      },
    );
    const missing = made("p", { className: "note", textContent: "no longer on the server: add the same file again" });
    const found = ({ detail }) => detail === picture.id && draw();
    draw();
    return place;
  }

  #copies(said, answer, body) {
    const texts = { "Copy text": answer.text, "Copy as curl": asCurl(body), "Copy as Python": asPython(body) };
    const buttons = made("p", { className: "buttons" });
    for (const [label, text] of Object.entries(texts)) {
      const button = made("button", { type: "button", textContent: label });
      button.addEventListener("click", async () => {
        button.textContent = (await copy(text)) ? "Copied" : "The browser does not allow it";
        speak(button.textContent);
        setTimeout(() => (button.textContent = label), 1500);
      });
      buttons.append(button);
    }
    following(() => said.element.append(buttons));
  }

  #keep(question = "") {
    const turns = this.#turns.map((turn) => ({
      ...turn,
      pictures: turn.pictures.map(({ file: _, url: __, ...plain }) => plain),
    }));
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ turns, question }));
    } catch {
      sessionStorage.removeItem(KEPT); // longer than a browser keeps: better nothing than an old one
    }
  }
}

function lost({ name }) {
  const said = "expected every picture of the conversation on the server, which keeps one for an hour; " +
    "got one that is gone; add the same file again, or start a new conversation";
  return Object.assign(new ServerError(said), { picture: name });
}

function message({ role, text, pictures }) {
  if (!pictures.length) return { role, content: text };
  const parts = pictures.map(({ id, detail }) => ({ type: "image_url", image_url: { url: `picture:${id}`, detail } }));
  return { role, content: text ? [...parts, { type: "text", text }] : parts };
}

function statistics({ timings }, reason) {
  const { prompt_n: read, cache_n: cached, predicted_n: written, predicted_per_second: rate } = timings;
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;
  return [
    `${read + cached} positions, ${cached} cached`,
    `pictures ${seconds(timings.encode_ms)}`,
    `first token after ${seconds(timings.first_token_ms)}`,
    `${written} ${written === 1 ? "token" : "tokens"} at ${rate.toFixed(0)}/s`,
    `ended by ${reason}`,
  ].join(" · ");
}
