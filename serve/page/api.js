// The server's API: JSON requests, uploads, and a streamed answer. Every failure is a Failure.

/** What went wrong: what was expected, what was found, what to do; `code` is the server's. */
export class Failure extends Error {
  constructor({ message, expected = "", got = "", fix = "", code = null }) {
    super(message);
    Object.assign(this, { expected, got, fix, code });
  }
}

const GONE = {
  message: "The server does not answer.",
  expected: "an answer from the server",
  got: "no connection",
  fix: "see whether llava-edge serve still runs, then ask again",
  code: "unreachable",
};

/** Models as GET /v1/models lists them. */
export async function listModels() {
  return (await json("/v1/models")).data;
}

/** Upload a picture's bytes; resolves to its id, grid and positions. */
export async function upload(blob, detail, model) {
  const query = new URLSearchParams({ detail });
  if (model) query.set("model", model);
  return json(`/v1/pictures?${query}`, { method: "POST", body: blob, headers: { "Content-Type": blob.type || "application/octet-stream" } });
}

/** Ask; calls `on.text`, `on.encode`, `on.prefill` as chunks arrive and resolves to {finish, usage, timings, warnings}. */
export async function ask(body, on, signal) {
  const response = await send("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, return_progress: true }),
    signal,
  });
  const ending = { finish: null, usage: null, timings: null, warnings: [] };
  let ended = false;
  for await (const data of events(response, signal)) {
    if (data === "[DONE]") {
      ended = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw failure(chunk);
    take(chunk, on, ending);
  }
  if (!ended) throw new Failure({ ...GONE, message: "The answer broke off.", got: "the end of the connection" });
  return ending;
}

function take(chunk, on, ending) {
  if (chunk.encode_progress) on.encode(chunk.encode_progress);
  if (chunk.prompt_progress) on.prefill(chunk.prompt_progress);
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) on.text(choice.delta.content);
  if (choice?.finish_reason) ending.finish = choice.finish_reason;
  if (chunk.usage) ending.usage = chunk.usage;
  if (chunk.timings) ending.timings = chunk.timings;
  if (chunk.warnings?.length) ending.warnings = chunk.warnings;
}

/** The data lines of a stream of server-sent events. */
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  while (true) {
    let step;
    try {
      step = await reader.read();
    } catch (error) {
      throw signal?.aborted ? error : new Failure({ ...GONE, message: "The answer broke off." });
    }
    if (step.done) return;
    buffer += step.value;
    const lines = buffer.split("\n");
    buffer = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

async function json(url, options) {
  return (await send(url, options)).json();
}

async function send(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure(GONE);
  }
  if (response.ok) return response;
  throw failure(await response.json().catch(() => ({ error: { message: `The server said ${response.status}.` } })));
}

function failure({ error }) {
  if (typeof error === "string") return new Failure({ message: error });
  const parts = /^expected (.*?); got (.*); (.*)$/s.exec(error.message ?? "");
  return new Failure({
    message: error.message ?? "The server gave no reason.",
    expected: error.expected ?? parts?.[1],
    got: error.got ?? parts?.[2],
    fix: error.fix ?? parts?.[3],
    code: error.code,
  });
}
