/**
 * Turns the things every page shows into elements: tones, figures, bars, notices, code.
 */

import { h, setAttribute, setChildren, setText } from "../dom.js";
import { toneIcon } from "../icons.js";

/** A word with the shape and colour of its tone. Updated in place. */
export function badge() {
  const element = h("span", { class: "badge" });
  let last = "";
  const update = (tone, text) => {
    const now = `${tone} ${text}`;
    if (now === last) return;
    last = now;
    setAttribute(element, "class", `badge tone-${tone}`);
    setChildren(element, toneIcon(tone), h("span", {}, text));
  };
  return { element, update };
}

/**
 * A number with its name, for a row of them.
 *
 * @param {string} name
 */
export function figure(name) {
  const value = h("dd", { class: "figure-value" }, "–");
  const note = h("dd", { class: "figure-note" });
  const element = h("div", { class: "figure" }, h("dt", {}, name), value, note);
  const update = (text, under = "", title = null) => {
    setText(value, text);
    setText(note, under);
    setAttribute(value, "title", title);
  };
  return { element, update };
}

/** A row of figures. */
export function figures(...parts) {
  return h("dl", { class: "figures" }, parts.map(({ element }) => element));
}

/**
 * How full something is, with words beside it that say the same.
 *
 * @param {string} name
 */
export function gauge(name) {
  const level = h("div", { class: "gauge-level" });
  const meter = h("div", { class: "gauge", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100 }, level);
  const text = h("p", { class: "gauge-text" });
  const element = h("div", { class: "gauge-box" }, meter, text);
  const update = (share, words, tone = "good") => {
    const percent = Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10;
    level.hidden = share === 0;
    level.style.setProperty("inline-size", `${percent}%`);
    setAttribute(level, "class", `gauge-level tone-${tone}`);
    setAttribute(meter, "aria-valuenow", percent);
    setAttribute(meter, "aria-valuetext", words);
    setText(text, words);
  };
  return { element, update };
}

/** Something to know, in words. */
export function notice(tone, ...children) {
  return h("div", { class: `notice tone-${tone}` }, toneIcon(tone, 20), h("div", {}, ...children));
}

/** What a page shows until there is something. */
export function loading() {
  return h("p", { class: "loading" }, "Asking the agent…");
}

/** A heading and what is under it. */
export function section(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), ...children);
}

/** A button that copies and says so. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { type: "button", class: "quiet small" }, label);
  button.addEventListener("click", async () => {
    const isCopied = await navigator.clipboard?.writeText(text()).then(() => true, () => false);
    setText(button, isCopied ? "Copied" : "Cannot copy here");
    setTimeout(() => setText(button, label), 1500);
  });
  return button;
}

/** A list of links, or the word for none. */
export function linkList(items, none = "none") {
  if (items.length === 0) return h("p", { class: "muted" }, none);
  return h("ul", { class: "links" }, items.map(({ href, text }) => h("li", {}, h("a", { href }, text))));
}

/**
 * A table with a caption and headers. `columns` are {title, isNumber}; cells are text or nodes.
 */
export function table(caption, columns, rows, { isCaptionShown = false } = {}) {
  const kind = ({ isNumber }) => (isNumber ? "number" : null);
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.title)));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, at) => h(at === 0 ? "th" : "td", { class: kind(columns[at]), scope: at === 0 ? "row" : null }, cell))),
  );
  return h(
    "div",
    { class: "table-scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: isCaptionShown ? null : "unseen" }, caption), h("thead", {}, head), h("tbody", {}, body)),
  );
}
