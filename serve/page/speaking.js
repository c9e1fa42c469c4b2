// What a screen reader hears: whole sentences, since an answer comes in pieces of words.
import { $, made } from "./elements.js";

const SENTENCES = /^.*(?:[.!?:;…](?=\s)|[。！？]|\n)/s;
const LINES = 20; // what was read out long ago need not stay

export function speak(text) {
  if (!text.trim()) return;
  $("spoken").append(made("p", { textContent: text.trim() }));
  while ($("spoken").children.length > LINES) $("spoken").firstChild.remove();
}

export class Sentences {
  #rest = "";

  append(piece) {
    this.#rest += piece;
    const [whole] = SENTENCES.exec(this.#rest) ?? [""];
    this.#rest = this.#rest.slice(whole.length);
    speak(whole);
  }

  end() {
    speak(this.#rest);
    this.#rest = "";
  }
}
