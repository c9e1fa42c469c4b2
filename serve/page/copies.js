// An answer to take along: its text, or the request that made it as curl or Python.

import { element } from "./dom.js";

export function copyButtons(turn) {
  return element("div", { class: "copies", role: "group", "aria-label": "Copy" },
    button("Copy text", () => turn.answer),
    button("as curl", () => asCurl(turn.request)),
    button("as Python", () => asPython(turn.request)));
}

function button(label, text) {
  return element("button", {
    type: "button",
    click: async (event) => {
      const shown = event.currentTarget;
      try {
        await navigator.clipboard.writeText(text());
        shown.textContent = "copied";
      } catch {
        shown.textContent = "the browser refused";
      }
      setTimeout(() => { shown.textContent = label; }, 1500);
    },
  }, label);
}

// the token stays out of both: what is copied is pasted into chats
function asCurl(request) {
  const body = JSON.stringify(request).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/chat/completions -H "Authorization: Bearer $LLAVA_EDGE_TOKEN" -H "Content-Type: application/json" -d '${body}'`;
}

function asPython(request) {
  const { model, messages, ...rest } = request;
  const keywords = Object.entries(rest).map(([name, value]) => `    ${name}=json.loads(${quoted(JSON.stringify(value))}),\n`).join("");
  return `import json
import os

from openai import OpenAI

client = OpenAI(base_url=${quoted(location.origin + "/v1")}, api_key=os.environ["LLAVA_EDGE_TOKEN"])
answer = client.chat.completions.create(
    model=${quoted(model)},
    messages=json.loads(${quoted(JSON.stringify(messages))}),
${keywords})
print(answer.choices[0].message.content)
`;
}

/** A Python string literal; JSON's escapes are Python's too. */
function quoted(text) {
  return JSON.stringify(text);
}
