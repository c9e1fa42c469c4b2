// The text of an answer as it grows. Code between ``` lines stands in blocks of its own, which scroll instead of wrapping.
import { $, made } from "./elements.js";
import { Sentences } from "./speaking.js";

const FENCE = /^ {0,3}```/;

// Whoever reads at the end of the page stays there while it grows; whoever has gone up is left alone. A browser scrolls to
// a pixel, and boxes end between two.
export function following(grow) {
  const { top, bottom } = $("stop").getBoundingClientRect();
  grow();
  if (top >= 0 && bottom <= innerHeight + 2) $("stop").scrollIntoView({ block: "nearest" });
}

export class AnswerText {
  #node = null; // where text goes now
  #line = ""; // the last one, as far as it came
  #code = false;
  #waiting = ""; // written once a frame: laying out a long text anew for every token takes the model's time
  #frame = 0;
  #spoken = new Sentences();

  constructor(text = "") {
    this.element = made("div", { className: "text" });
    this.#begin(false);
    this.#write(text);
    this.#fence();
  }

  append(piece) {
    this.#waiting += piece;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
    this.#spoken.append(piece);
  }

  end() {
    this.#flush();
    this.#fence();
    this.#spoken.end();
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    following(() => this.#write(this.#waiting));
    this.#waiting = "";
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
