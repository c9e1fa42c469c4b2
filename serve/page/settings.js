// What is chosen beside the question. Kept for this tab, so that a reload forgets nothing.

import { Failure } from "./api.js";
import { find } from "./dom.js";

const FIELDS = ["model", "detail", "temperature", "seed", "max-tokens", "schema"];
const KEY = "llava-edge settings";

export class Settings {
  constructor(models) {
    const select = find("model");
    select.replaceChildren(...models.map(({ id }) => new Option(id, id)));
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    for (const id of FIELDS) {
      const known = id !== "model" || models.some((model) => model.id === kept.model);
      if (kept[id] !== undefined && known) find(id).value = kept[id];
      find(id).addEventListener("change", () => this.#keep());
    }
  }

  get model() {
    return find("model").value;
  }

  get detail() {
    return find("detail").value;
  }

  /** The fields of a request; empty ones are left out. Throws a Failure for a schema that is no JSON. */
  request() {
    const body = { model: this.model, temperature: number("temperature") ?? 0, max_tokens: number("max-tokens") ?? 512 };
    const seed = number("seed");
    if (seed !== null) body.seed = seed;
    const schema = find("schema").value.trim();
    if (schema) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: parse(schema) } };
    return body;
  }

  #keep() {
    sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(FIELDS.map((id) => [id, find(id).value]))));
  }
}

function number(id) {
  const { value } = find(id);
  return value === "" ? null : Number(value);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure({ message: "schema", expected: "a JSON schema", got: error.message, fix: "correct it in Settings, or leave it empty" });
  }
}
