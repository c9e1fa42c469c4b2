// Start a server that lives as long as this program, and ask it: node examples/serve/sidecar.mjs PICTURE QUESTION
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [picture, question] = process.argv.slice(2);
if (!question) {
  console.error("usage: node sidecar.mjs PICTURE QUESTION");
  process.exit(2);
}
const token = randomBytes(32).toString("hex");
const server = spawn(process.env.LLAVA_EDGE ?? "llava-edge", ["serve", "--sidecar"], { stdio: ["pipe", "pipe", "inherit"] });
server.stdin.on("error", () => {}); // it has ended, and the next line says so
server.stdin.write(token + "\n"); // left open: when it ends, the server does
const ready = new Promise((resolve, reject) => {
  createInterface(server.stdout).once("line", resolve);
  server.once("error", reject);
  server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
});

try {
  const { url } = JSON.parse(await ready);
  const image = "data:application/octet-stream;base64," + readFileSync(picture).toString("base64");
  const reply = await fetch(url + "/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
    body: JSON.stringify({
      messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: image } }, { type: "text", text: question }] }],
    }),
  });
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.error.message);
  console.log(body.choices[0].message.content);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  server.stdin.end();
}
