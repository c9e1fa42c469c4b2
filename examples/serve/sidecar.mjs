// Start a server that lives as long as this program, and ask it: node examples/serve/sidecar.mjs PICTURE QUESTION
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const token = randomBytes(32).toString("hex");
const server = spawn(process.env.LLAVA_EDGE ?? "llava-edge", ["serve", "--sidecar"], { stdio: ["pipe", "pipe", "inherit"] });
server.stdin.write(token + "\n"); // left open: when it ends, the server does
const line = await new Promise((resolve) => createInterface(server.stdout).once("line", resolve));
const { url } = JSON.parse(line);

const [picture, question] = process.argv.slice(2);
const image = "data:application/octet-stream;base64," + readFileSync(picture).toString("base64");
const reply = await fetch(url + "/v1/chat/completions", {
  method: "POST",
  headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
  body: JSON.stringify({
    messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: image } }, { type: "text", text: question }] }],
  }),
});
const body = await reply.json();
console.log(reply.ok ? body.choices[0].message.content : body.error.message);
server.stdin.end();
