// The tiles drawn over a picture, from what POST /v1/pictures says of it. Nothing is encoded for it.

import { element, shape } from "./dom.js";

/**
 * The picture inside its grid: tiles numbered in reading order, padding that is cut away tinted, the overview beside it.
 * `layout` is the server's: size, grid [rows, columns], resized [w, h], tile (side in pixels), image_tokens.
 */
export function drawOverlay(url, layout, name) {
  const [rows, columns] = layout.grid;
  const side = layout.tile;
  const alone = rows * columns === 0;
  const whole = alone ? null : drawGrid(url, layout, rows, columns, side, name);
  const overview = drawOverview(url, side, name);
  return element("div", { class: "sheet" }, ...(whole ? [whole] : []), overview);
}

/** One line that says the same in words. */
export function describeLayout(layout) {
  const [rows, columns] = layout.grid;
  const [width, height] = layout.size;
  const tiles = rows * columns ? `${rows} × ${columns} tiles of ${layout.tile} px and the overview` : "the overview alone";
  return `${width} × ${height} px: ${tiles}, ${layout.image_tokens.toLocaleString("en")} positions of the prompt`;
}

function drawGrid(url, layout, rows, columns, side, name) {
  const [width, height] = [columns * side, rows * side];
  const [inner, tall] = layout.resized;
  const [left, top] = [(width - inner) / 2, (height - tall) / 2];
  const drawing = canvas(width, height, `${name} in ${rows} rows and ${columns} columns of tiles`);
  drawing.append(
    shape("rect", { width, height, class: "padding" }),
    shape("image", { href: url, x: left, y: top, width: inner, height: tall, preserveAspectRatio: "none" }),
  );
  const unit = Math.max(width, height) / 100;
  for (let index = 0; index < rows * columns; index++) {
    const [x, y] = [(index % columns) * side, Math.floor(index / columns) * side];
    drawing.append(shape("rect", { x, y, width: side, height: side, class: "tile" }), number(index + 1, x, y, unit));
  }
  return drawing;
}

function drawOverview(url, side, name) {
  const drawing = canvas(side, side, `Overview of ${name}`);
  drawing.classList.add("overview");
  drawing.append(
    shape("image", { href: url, width: side, height: side, preserveAspectRatio: "none" }),
    shape("rect", { width: side, height: side, class: "tile" }),
    number(0, 0, 0, side / 40),
  );
  return drawing;
}

function canvas(width, height, label) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}

function number(text, x, y, unit) {
  const label = shape("text", { x: x + 1.2 * unit, y: y + 4.2 * unit, class: "number", "font-size": 4 * unit }, String(text));
  return label;
}
