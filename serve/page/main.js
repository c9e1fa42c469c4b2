// The page: a tray of pictures, a question, and a conversation about them.

import { ask, Failure, listModels } from "./api.js";
import { Conversation } from "./conversation.js";
import { element, find } from "./dom.js";
import { Tray } from "./pictures.js";
import { Settings } from "./settings.js";

async function start() {
  let models;
  try {
    models = await listModels();
  } catch (error) {
    say(error);
    find("send").disabled = true;
    return;
  }
  const settings = new Settings(models);
  const tray = new Tray(settings, say);
  const conversation = new Conversation(settings);
  find("hint").hidden = !conversation.isEmpty;
  new Composer(settings, tray, conversation);
  find("question").focus();
}

class Composer {
  #settings;
  #tray;
  #conversation;
  #asking = null; // the AbortController of the request under way

  constructor(settings, tray, conversation) {
    this.#settings = settings;
    this.#tray = tray;
    this.#conversation = conversation;
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    find("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#ask();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#asking?.abort();
    });
    find("stop").addEventListener("click", () => this.#asking?.abort());
    find("new").addEventListener("click", () => this.#forget());
    for (const id of ["detail", "model"]) {
      find(id).addEventListener("change", () => this.#tray.refresh().catch(say));
    }
  }

  #forget() {
    this.#asking?.abort();
    this.#conversation.clear();
    this.#tray.clear();
    hush();
    find("hint").hidden = false;
    find("question").focus();
  }

  async #ask() {
    const question = find("question").value.trim();
    if (this.#asking || !question) return;
    const controller = new AbortController();
    this.#busy(controller);
    hush();
    try {
      await this.#answer(question, [...this.#tray.pictures], controller.signal);
    } catch (error) {
      say(error);
    } finally {
      this.#busy(null);
    }
  }

  async #answer(question, pictures, signal, again = true) {
    const request = { ...this.#settings.request(), messages: this.#conversation.messages(question, pictures) };
    const turn = await this.#conversation.begin(question, pictures, request);
    find("hint").hidden = true;
    try {
      turn.end(await ask(request, { text: (text) => this.#write(turn, text), encode: showEncoding, prefill: showReading }, signal));
    } catch (error) {
      if (signal.aborted) return turn.breakOff("stopped");
      if (error.code === "picture_not_found" && again && pictures.length) {
        turn.drop();
        await this.#tray.refresh(pictures); // the server keeps uploads for an hour; a sleeping laptop is longer away
        return this.#answer(question, pictures, signal, false);
      }
      turn.drop();
      throw error;
    }
    this.#tray.clear();
    find("question").value = "";
    show("Answered.");
  }

  #write(turn, text) {
    if (!find("progress").hidden) show("answering");
    turn.write(text);
  }

  #busy(controller) {
    this.#asking = controller;
    find("send").hidden = controller !== null;
    find("stop").hidden = controller === null;
    if (controller) show("sent");
    else {
      find("progress").hidden = true;
      if (find("state").textContent !== "Answered.") find("state").textContent = "";
      find("question").focus();
    }
  }
}

function showEncoding({ tiles_done: done, tiles }) {
  show(`looking at tile ${Math.min(done + 1, tiles)} of ${tiles}`, done / tiles);
}

function showReading({ processed, total }) {
  show(`read ${processed} of ${total} positions`, processed / total);
}

function show(text, share = null) {
  find("state").textContent = text;
  find("progress").hidden = share === null;
  if (share !== null) find("progress").value = share;
}

function hush() {
  find("alert").hidden = true;
}

/** An error as three lines: what was expected, what was found, what to do. */
function say(error) {
  if (!(error instanceof Failure)) console.error(error);
  const lines = error.fix
    ? [["Expected", error.expected], ["Got", error.got], ["What to do", error.fix]]
    : [["Error", error.message]];
  find("alert").replaceChildren(element("dl", {}, ...lines.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])));
  find("alert").hidden = false;
}

start();
