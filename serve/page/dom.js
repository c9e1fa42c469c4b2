// Elements without markup in strings: what a model or a file name says is only ever a text node.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/** An element with attributes (functions are listeners) and children (strings are text). */
export function element(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function shape(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Text as paragraphs, with ``` fences as code; nothing else is interpreted. */
export function prose(text) {
  const body = element("div", { class: "prose" });
  text.split(/^```[^\n]*\n?/m).forEach((part, index) => {
    if (!part) return;
    if (index % 2) body.append(element("pre", { tabindex: "0" }, element("code", {}, part.replace(/\n$/, ""))));
    else for (const paragraph of part.split(/\n{2,}/)) if (paragraph.trim()) body.append(element("p", {}, paragraph.trim()));
  });
  return body;
}
