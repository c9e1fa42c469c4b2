// A request as somebody would send it from a terminal or from Python, and the way into the clipboard.
import { made } from "./elements.js";

// Whether it is there now. Browsers keep the clipboard's own interface from pages without TLS at other machines' addresses.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = made("textarea", { value: text, className: "unseen" });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

export function asCurl(body) {
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  return (
    `curl ${location.origin}/v1/chat/completions -H "Authorization: Bearer $LLAVA_EDGE_TOKEN" ` +
    `-H "Content-Type: application/json" -d '${json}'`
  );
}

export function asPython(body) {
  const { model, messages, ...others } = body;
  const known = ["max_tokens", "temperature", "seed", "response_format"];
  const options = Object.entries(others).filter(([name]) => known.includes(name));
  const lines = options.map(([name, value]) => `    ${name}=${python(value)},`);
  return [
    "import os",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=os.environ["LLAVA_EDGE_TOKEN"])`,
    "answer = client.chat.completions.create(",
    `    model=${python(model)},`,
    `    messages=${python(messages)},`,
    ...lines,
    ")",
    "print(answer.choices[0].message.content)",
  ].join("\n");
}

// JSON is Python but for three words, which strings may hold too.
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
