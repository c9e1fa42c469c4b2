// One question at a time: its picture, its answer, and a person who says that it is right.
import { $ } from "/page/elements.js";

const TYPED = "typed";
let answers = [];
let leftOut = 0;
let place = -1;
let been = []; // places that were left for the next one, for "Back"
let typed = {}; // what was written and not confirmed yet, by number: a reload or "Later" loses nothing

class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function asked(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Refused("expected the server; got no connection; start 'llava-edge benchmark confirm' again");
  }
  const said = await reply.json();
  if (!reply.ok) throw new Refused(said.error?.message ?? `the server answered ${reply.status}`, reply.status);
  return said;
}

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

function wanted(one) {
  return $("everything").checked || !one.confirmed;
}

// The next place from `from` in steps of `step` that is still wanted, going round once; -1 where there is none.
function next(from, step) {
  for (let moved = 1; moved <= answers.length; moved += 1) {
    const index = (from + step * moved + answers.length * (moved + 1)) % answers.length;
    if (wanted(answers[index])) return index;
  }
  return -1;
}

function show(index) {
  place = index;
  const open = answers.filter((one) => !one.confirmed).length;
  const others = leftOut ? `, ${leftOut} more can't be asked` : "";
  $("count").textContent = `${answers.length - open} of ${answers.length} confirmed${others}`;
  $("answering").hidden = index < 0;
  $("done").hidden = open > 0;
  if (index < 0) return;
  const one = answers[index];
  $("picture").hidden = one.picture === null;
  if (one.picture !== null) {
    $("picture").src = `/answers/${one.number}/picture`;
    $("picture").alt = one.picture;
  }
  $("pictures").replaceChildren(
    ...one.pictures.slice(1).map((name, index) => {
      const image = document.createElement("img");
      image.src = `/answers/${one.number}/picture/${index + 1}`;
      image.alt = name;
      return image;
    }),
  );
  $("about").textContent = [`question ${one.id}`, ...one.pictures, one.confirmed ? "confirmed" : ""].filter(Boolean).join(" · ");
  $("question").textContent = one.question;
  $("scoring").textContent = one.scoring.join("\n");
  $("answer").value = typed[one.number] ?? one.answer;
  name();
  $("draft").textContent = [
    one.drafted_by ? `Drafted by ${one.drafted_by}.` : "",
    one.blind ? `Without the picture the bundle answers: ${one.blind}` : "",
  ].join(" ");
  $("answer").focus();
}

function name() {
  $("send").textContent = $("answer").value.trim() === answers[place].answer ? "It is right" : "Keep this answer";
}

function onward() {
  const index = next(place, 1);
  if (index !== place) been.push(place);
  show(index);
}

function back() {
  show(been.pop() ?? next(place, -1));
}

function keep(number, text) {
  typed = { ...typed, [number]: text };
  sessionStorage.setItem(TYPED, JSON.stringify(typed));
}

async function load() {
  ({ answers, left_out: leftOut } = await asked("/answers"));
}

// Answered in another tab: show what is there now, with what was typed here still in the box.
async function again(index) {
  const before = answers[index].answer;
  try {
    await load();
    if ($("answer").value === before) keep(answers[index].number, undefined);
    show(index);
  } catch {
    // the refusal is said all the same
  }
}

async function confirm() {
  const index = place;
  $("send").disabled = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const { answer, confirmed } = answers[index];
    const body = JSON.stringify({ answer: $("answer").value, shown: { answer, confirmed } });
    answers[index] = await asked(`/answers/${answers[index].number}`, { method: "POST", headers, body });
    $("error").hidden = true;
    keep(answers[index].number, undefined);
    onward();
  } catch (error) {
    if (error.status === 409) await again(index);
    fail(error);
  } finally {
    $("send").disabled = false;
  }
}

$("answering").addEventListener("submit", (event) => {
  event.preventDefault();
  confirm();
});
$("answer").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!$("send").disabled) confirm();
  }
});
$("answer").addEventListener("input", () => {
  keep(answers[place].number, $("answer").value);
  name();
});
$("later").addEventListener("click", onward);
$("back").addEventListener("click", back);
$("everything").addEventListener("change", () => show(place >= 0 && wanted(answers[place]) ? place : next(-1, 1)));

try {
  typed = JSON.parse(sessionStorage.getItem(TYPED) ?? "{}");
} catch {
  // nothing that can be read was kept
}
try {
  await load();
  show(next(-1, 1));
} catch (error) {
  fail(error);
}
document.body.dataset.ready = "yes";
