// Requests to the server that this page came from, and its errors in three parts.

export class ServerError extends Error {
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }

  // "expected …; got …; fix" as its parts; anything else as one. In front the name of the picture that it is about.
  get parts() {
    const match = /^expected (.*?); got (.*); ([^;]*)$/s.exec(this.message);
    const about = this.picture ? { picture: this.picture } : {};
    return { ...about, ...(match ? { expected: match[1], got: match[2], fix: match[3] } : { got: this.message }) };
  }
}

async function answered(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw gone();
  }
  if (reply.ok) return reply;
  let error = {};
  try {
    error = (await reply.json()).error;
  } catch {
    // no JSON: the status says what is known
  }
  throw new ServerError(error.message ?? `the server answered ${reply.status}`, error.code);
}

function gone() {
  return new ServerError("expected the server; got no connection; start it again", "gone");
}

export async function models() {
  return (await (await answered("/v1/models")).json()).data;
}

// How many pictures a request may have, and how many bytes one of them.
export async function limits() {
  return (await (await answered("/v1/status")).json()).limits;
}

export async function upload(file, model, detail) {
  const query = new URLSearchParams({ model, detail });
  const headers = { "Content-Type": "application/octet-stream" };
  return (await answered(`/v1/pictures?${query}`, { method: "POST", headers, body: file })).json();
}

// Where the tiles of an upload are drawn, once it is known that it is still there.
export async function drawnTiles(id, model, detail) {
  const query = new URLSearchParams({ model, detail });
  await answered(`/v1/pictures/${id}?${query}`);
  return `/v1/pictures/${id}/tiles.png?${query}`;
}

// The chunks of a streamed answer, one after the other. Throws ServerError, also where the stream breaks off.
export async function* stream(body, signal) {
  const headers = { "Content-Type": "application/json" };
  const reply = await answered("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw gone();
    }
    if (read.done) throw gone();
    const blocks = (text + read.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const data = block.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message, chunk.error.code);
      yield chunk;
    }
  }
}
