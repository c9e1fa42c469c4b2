// An Electron application's main process. The server belongs to it, and so does the token: the window asks through it.
const { app, BrowserWindow, ipcMain } = require("electron");
const { spawn } = require("node:child_process");
const { randomBytes } = require("node:crypto");
const { createInterface } = require("node:readline");

const token = randomBytes(32).toString("hex");

function started() {
  const command = process.env.LLAVA_EDGE ?? "llava-edge"; // in a package: a path below process.resourcesPath
  const server = spawn(command, ["serve", "--sidecar"], { stdio: ["pipe", "pipe", "inherit"] });
  server.stdin.on("error", () => {}); // it has ended, and its exit says so
  server.stdin.write(token + "\n"); // left open: when this process goes, however it goes, the server does
  app.on("will-quit", () => server.stdin.end());
  const url = new Promise((resolve, reject) => {
    createInterface(server.stdout).once("line", (line) => resolve(JSON.parse(line).url));
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  url.catch(() => {}); // whoever asks is told
  return url;
}

app.whenReady().then(() => {
  const url = started();
  // preload.js: contextBridge.exposeInMainWorld("ask", (messages) => ipcRenderer.invoke("ask", messages))
  ipcMain.handle("ask", async (_, messages) => {
    const reply = await fetch((await url) + "/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
      body: JSON.stringify({ messages }),
    });
    const body = await reply.json();
    if (!reply.ok) throw new Error(body.error.message);
    return body.choices[0].message.content;
  });
  new BrowserWindow({ webPreferences: { preload: `${__dirname}/preload.js` } }).loadFile("index.html");
});
