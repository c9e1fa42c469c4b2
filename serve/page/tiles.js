// What the model will see of a picture: the grid of tiles over it, the padding that is cut, and the overview.
import { drawn, made } from "./elements.js";

export function describe(seen) {
  const [rows, columns] = seen.grid;
  const tiles = rows ? `${rows} × ${columns} tiles and the overview` : "the overview alone";
  return `${seen.size[0]} × ${seen.size[1]} px, ${tiles}, ${seen.image_tokens} positions`;
}

export function figure(url, seen, name) {
  const picture = drawing(url, seen);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${name}: ${describe(seen)}`);
  return made("figure", {}, picture, made("figcaption", {}, made("b", { textContent: name, dir: "auto" }), ` ${describe(seen)}`));
}

function drawing(url, seen) {
  const [rows, columns] = seen.grid;
  if (!rows) {
    const side = 100; // the overview is squeezed into one square tile
    return svg(side, side, image(url, 0, 0, side, side), ...tile(0, 0, side, "0"));
  }
  const [width, height] = seen.resized;
  const side = Math.max(width / columns, height / rows); // one of them fills the grid
  const [all, high] = [columns * side, rows * side];
  const [left, top] = [(all - width) / 2, (high - height) / 2];
  const parts = [image(url, left, top, width, height)];
  for (const [x, y, w, h] of [
    [0, 0, all, top],
    [0, high - top, all, top],
    [0, 0, left, high],
    [all - left, 0, left, high],
  ]) {
    if (w > 0 && h > 0) parts.push(drawn("rect", { class: "cut", x, y, width: w, height: h }));
  }
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      parts.push(...tile(column * side, row * side, side, `${row * columns + column + 1}`));
    }
  }
  const gap = side / 8;
  parts.push(image(url, all + gap, 0, side / 2, side / 2), ...tile(all + gap, 0, side / 2, "0"));
  return svg(all + gap + side / 2, high, ...parts);
}

function svg(width, height, ...parts) {
  const edge = Math.max(width, height) / 40; // half a line lies outside
  const viewBox = [-edge, -edge, width + 2 * edge, height + 2 * edge].join(" ");
  return drawn("svg", { class: "tiles", viewBox, preserveAspectRatio: "xMinYMin" }, ...parts);
}

function image(href, x, y, width, height) {
  return drawn("image", { href, x, y, width, height, preserveAspectRatio: "none" });
}

function tile(x, y, side, number) {
  const label = drawn("text", { x: x + side / 16, y: y + side / 5, "font-size": side / 6, "stroke-width": side / 40 }, number);
  const square = { x, y, width: side, height: side };
  return [
    drawn("rect", { class: "halo", ...square, "stroke-width": side / 22 }), // seen on every picture, dark or light
    drawn("rect", { class: "tile", ...square, "stroke-width": side / 50 }),
    label,
  ];
}
