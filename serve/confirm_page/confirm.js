// One question at a time: its picture, its answer, and a person who says that it is right.
import { $ } from "/page/elements.js";

const TYPED = "typed";
let answers = [];
let place = -1;
let typed = {}; // what was written and not confirmed yet, by number: a reload or "Later" loses nothing

class Refused extends Error {}

async function asked(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Refused("expected the server; got no connection; start 'llava-edge benchmark confirm' again");
  }
  const said = await reply.json();
  if (!reply.ok) throw new Refused(said.error?.message ?? `the server answered ${reply.status}`);
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
  $("count").textContent = `${answers.length - open} of ${answers.length} confirmed`;
  $("answering").hidden = index < 0;
  $("done").hidden = open > 0;
  if (index < 0) return;
  const one = answers[index];
  $("picture").hidden = one.picture === null;
  if (one.picture !== null) {
    $("picture").src = `/answers/${one.number}/picture`;
    $("picture").alt = one.picture;
  }
  $("about").textContent = [`question ${one.id}`, one.picture, one.confirmed ? "confirmed" : ""].filter(Boolean).join(" · ");
  $("question").textContent = one.question;
  $("answer").value = typed[one.number] ?? one.answer;
  $("draft").textContent = [
    one.drafted_by ? `Drafted by ${one.drafted_by}.` : "",
    one.blind ? `Without the picture the bundle answers: ${one.blind}` : "",
  ].join(" ");
  $("answer").focus();
}

function keep(number, text) {
  typed = { ...typed, [number]: text };
  sessionStorage.setItem(TYPED, JSON.stringify(typed));
}

async function confirm() {
  const index = place;
  $("send").disabled = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ answer: $("answer").value });
    answers[index] = await asked(`/answers/${answers[index].number}`, { method: "POST", headers, body });
    $("error").hidden = true;
    keep(answers[index].number, undefined);
    show(next(index, 1));
  } catch (error) {
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
$("answer").addEventListener("input", () => keep(answers[place].number, $("answer").value));
$("later").addEventListener("click", () => show(next(place, 1)));
$("back").addEventListener("click", () => show(next(place, -1)));
$("everything").addEventListener("change", () => show(place >= 0 && wanted(answers[place]) ? place : next(-1, 1)));

try {
  typed = JSON.parse(sessionStorage.getItem(TYPED) ?? "{}");
} catch {
  // nothing that can be read was kept
}
try {
  answers = (await asked("/answers")).answers;
  show(next(-1, 1));
} catch (error) {
  fail(error);
}
document.body.dataset.ready = "yes";
