// Wires the page: options, pictures from everywhere, asking and stopping.
import { limits, models, ServerError } from "./api.js";
import { Conversation } from "./conversation.js";
import { $, made } from "./elements.js";
import { Pictures } from "./pictures.js";
import { speak } from "./speaking.js";

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
    return $("max_tokens").value === "" ? 512 : Number($("max_tokens").value);
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
const allowed = { pictures: Infinity, picture_bytes: Infinity }; // until the server says
const conversation = new Conversation(settings);
const pictures = new Pictures(settings, () => ({ ...allowed, room: allowed.pictures - conversation.pictures }), report);
let asking = null;
let phase = "";

// Show what went wrong in the step that ended now; nothing went wrong: what was said before is over.
function report(errors) {
  $("error").hidden = !errors.length;
  $("error").replaceChildren(...errors.map((error) => {
    const parts = Object.entries(error instanceof ServerError ? error.parts : { got: String(error) });
    return made("dl", {}, ...parts.flatMap(([name, text]) => [
      made("dt", { textContent: name }),
      made("dd", { textContent: text, dir: "auto" }),
    ]));
  }));
  if (errors.length) $("error").scrollIntoView({ block: "nearest" });
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
  if (kind !== phase) speak({ tile: "Looking at the pictures", position: "Reading" }[kind] ?? "");
  phase = kind;
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
  progress("waiting", 0, 0);
  const text = $("question").value.trim();
  let taken = [];
  try {
    if (!(await pictures.added())) return; // the question was about what was refused
    if (controller.signal.aborted) return;
    report([]);
    if (!text && !pictures.count) {
      throw new ServerError("expected a question; got an empty one; type one, or add a picture");
    }
    taken = pictures.take();
    $("question").value = "";
    await conversation.ask(text, taken, controller.signal, progress);
  } catch (error) {
    if (error.name !== "AbortError") report([error]);
    if ((!error.kept || error.again) && !$("question").value) $("question").value = text;
    if (!error.kept) pictures.put(taken);
  } finally {
    working(null);
    focusQuestion();
  }
}

// Where a finger points, focus would bring up the keyboard over what there is to read.
function focusQuestion() {
  if (matchMedia("(pointer: coarse)").matches) $("turns").focus({ preventScroll: true });
  else $("question").focus();
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
  pictures.clear();
  $("question").value = "";
  report([]);
  focusQuestion();
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
addEventListener("pagehide", () => conversation.leave());

try {
  for (const { id } of await models()) $("model").append(made("option", { value: id, textContent: id }));
  Object.assign(allowed, await limits());
  $("question").value ||= conversation.restore();
} catch (error) {
  report([error]);
}
document.body.dataset.ready = "true";
focusQuestion();
