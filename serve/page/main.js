// Wires the page: options, pictures from everywhere, asking and stopping.
import { models, ServerError } from "./api.js";
import { Conversation } from "./conversation.js";
import { $, made } from "./elements.js";
import { Pictures } from "./pictures.js";

const settings = {
  get model() {
    return $("model").value;
  },
  get detail() {
    return $("detail").value;
  },
  get temperature() {
    return Number($("temperature").value);
  },
  get maxTokens() {
    return Number($("max_tokens").value) || 512;
  },
  get seed() {
    return $("seed").value === "" ? null : Number($("seed").value);
  },
  get schema() {
    const text = $("schema").value.trim();
    if (!text) return null;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new ServerError(`expected JSON in the schema; got ${error.message}; correct it`);
    }
  },
};
const pictures = new Pictures(settings, fail);
const conversation = new Conversation(settings);
let asking = null;

function fail(error) {
  const parts = Object.entries(error instanceof ServerError ? error.parts : { got: String(error) });
  const list = made("dl", {}, ...parts.flatMap(([name, text]) => [
    made("dt", { textContent: name }),
    made("dd", { textContent: text }),
  ]));
  $("error").replaceChildren(list);
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

function progress(kind, done, total) {
  const bar = $("progress");
  if (total) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  const said = { tile: `tile ${done} of ${total}`, position: `read ${done} of ${total} positions`, answer: "answering" };
  if ($("doing").textContent !== (said[kind] ?? kind)) $("doing").textContent = said[kind] ?? kind;
}

function working(controller) {
  asking = controller;
  $("send").disabled = Boolean(controller);
  $("stop").disabled = !controller;
  $("work").hidden = !controller;
}

async function ask() {
  if (asking) return;
  const controller = new AbortController();
  working(controller);
  $("error").hidden = true;
  progress("waiting", 0, 0);
  const text = $("question").value.trim();
  const taken = await pictures.take();
  try {
    if (!text && !taken.length) {
      throw new ServerError("expected a question; got an empty one; type one, or add a picture");
    }
    $("question").value = "";
    await conversation.ask(text, taken, controller.signal, progress);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
    if (!error.kept) {
      if (!$("question").value) $("question").value = text;
      pictures.put(taken);
    }
  } finally {
    working(null);
    $("question").focus();
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") asking?.abort();
});
$("stop").addEventListener("click", () => asking?.abort());
$("clear").addEventListener("click", () => {
  asking?.abort();
  conversation.clear();
  $("error").hidden = true;
  $("question").focus();
});
$("files").addEventListener("change", async () => {
  const files = [...$("files").files];
  $("files").value = "";
  await pictures.add(files);
});
for (const id of ["model", "detail"]) $(id).addEventListener("change", () => pictures.refresh());
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    pictures.add(files);
  }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") pictures.add([...event.dataTransfer.files]);
  });
}

try {
  for (const { id } of await models()) $("model").append(made("option", { value: id, textContent: id }));
  conversation.restore();
} catch (error) {
  fail(error);
}
document.body.dataset.ready = "true";
$("question").focus();
