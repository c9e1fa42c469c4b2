// An Electron application's main process: the server belongs to the application, its page gets the address and token.
const { app, BrowserWindow, ipcMain } = require("electron");
const { spawn } = require("node:child_process");
const { randomBytes } = require("node:crypto");
const { createInterface } = require("node:readline");

const token = randomBytes(32).toString("hex");
let ready;

app.whenReady().then(() => {
  const command = process.env.LLAVA_EDGE ?? "llava-edge"; // in a package: a path below process.resourcesPath
  const origin = "app://llava-edge"; // the page's own, so that its requests are let in
  const server = spawn(command, ["serve", "--sidecar", "--allow-origin", origin], { stdio: ["pipe", "pipe", "inherit"] });
  server.stdin.write(token + "\n");
  ready = new Promise((resolve, reject) => {
    createInterface(server.stdout).once("line", (line) => resolve(JSON.parse(line).url));
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  ipcMain.handle("server", async () => ({ url: await ready, token }));
  app.on("will-quit", () => server.stdin.end());
  new BrowserWindow({ webPreferences: { preload: `${__dirname}/preload.js` } }).loadFile("index.html");
});
