// The text of an answer as it grows. Code between ``` lines stands in blocks of its own, which scroll instead of wrapping.
import { made } from "./elements.js";
import { Sentences } from "./speaking.js";

const FENCE = /^ {0,3}```/;

export class AnswerText {
  #node = null; // where text goes now
  #line = ""; // the last one, as far as it came
  #code = false;
  #spoken = new Sentences();

  constructor(text = "") {
    this.element = made("div", { className: "text" });
    this.#begin(false);
    this.#write(text);
    this.#fence();
  }

  append(piece) {
    this.#write(piece);
    this.#spoken.append(piece);
  }

  end() {
    this.#fence();
    this.#spoken.end();
  }

  #write(piece) {
    for (const part of piece.split(/(?<=\n)/)) {
      this.#line += part;
      this.#node.appendData(part);
      if (part.endsWith("\n") && !this.#fence()) this.#line = "";
    }
  }

  // Turns a line of ``` into the beginning or the end of a block.
  #fence() {
    if (!FENCE.test(this.#line)) return false;
    this.#node.deleteData(this.#node.length - this.#line.length, this.#line.length);
    if (this.#node.data.endsWith("\n")) this.#node.deleteData(this.#node.length - 1, 1); // the block is its break
    this.#line = "";
    this.#begin(!this.#code);
    return true;
  }

  #begin(code) {
    this.#code = code;
    this.#node = document.createTextNode("");
    const block = { className: "code", tabIndex: 0, role: "region", ariaLabel: "Code" }; // in the tab order: keys scroll it
    this.element.append(code ? made("pre", block, this.#node) : made("div", {}, this.#node));
  }
}
