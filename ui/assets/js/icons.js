/**
 * Turns a tone or a page's name into a small drawing.
 *
 * A tone has a shape of its own, so that it does not hang on colour. Icons are decoration beside a
 * word, and hidden from screen readers.
 */

import { svg } from "./dom.js";

const SHAPES = {
  good: ["M8 1.2a6.8 6.8 0 1 1 0 13.6A6.8 6.8 0 0 1 8 1.2Z", "m4.9 8.3 2.2 2.2 4-4.6"],
  busy: ["M8 1.2a6.8 6.8 0 1 1 0 13.6A6.8 6.8 0 0 1 8 1.2Z", "M8 4.4v7m-2.8-2.7L8 11.5l2.8-2.8"],
  warn: ["M8 1.4 15.2 14H.8L8 1.4Z", "M8 6v3.6m0 2.3v.1"],
  bad: ["M5 1.2h6L14.8 5v6L11 14.8H5L1.2 11V5L5 1.2Z", "m5.6 5.6 4.8 4.8m0-4.8-4.8 4.8"],
  idle: ["M8 .9 15.1 8 8 15.1.9 8 8 .9Z", "M5.4 8h5.2"],
};

const PICTURES = {
  overview: "M2 4.2h4v3H2zM10 2.2h4v3h-4zM10 10.8h4v3h-4zM6 5.7h1.6c1 0 1-2 2.4-2M7.2 5.7c1.6 0 1 6.6 2.8 6.6",
  components: "M2 2.6h5v4.6H2zM9 2.6h5v4.6H9zM2 9h5v4.6H2zM9 9h5v4.6H9z",
  reservoir: "M1.5 4.2v9.3h13V4.2M1.5 8c1.6-1.2 3-1.2 4.3 0s2.9 1.2 4.4 0 2.8-1.2 4.3 0",
  cardinality: "M2 13.5h12M3.5 13.5V7.4M6.5 13.5V2.5M9.5 13.5V9.2M12.5 13.5v-2.6",
  debug: "M2 3.2h12v9.6H2zM4.6 6.2 6.8 8l-2.2 1.8M8.2 10.4h3",
  cluster: "M8 1.8a1.9 1.9 0 1 1 0 3.8 1.9 1.9 0 0 1 0-3.8ZM3.4 10.2a1.9 1.9 0 1 1 0 3.8 1.9 1.9 0 0 1 0-3.8Zm9.2 0a1.9 1.9 0 1 1 0 3.8 1.9 1.9 0 0 1 0-3.8ZM7 5.4l-2.6 5m4.6-5 2.6 5M5.3 12.1h5.4",
  sun: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6ZM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3.1 3.1l1.1 1.1M11.8 11.8l1.1 1.1M12.9 3.1l-1.1 1.1M4.2 11.8l-1.1 1.1",
  moon: "M13.4 9.9A5.8 5.8 0 0 1 6.1 2.6a5.8 5.8 0 1 0 7.3 7.3Z",
  auto: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2ZM8 2v12M10.5 3.2v9.6M12.6 5v6",
  arrow: "M3 8h10M9.4 4.4 13 8l-3.6 3.6",
};

const hidden = { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" };

/** The shape of a tone. */
export function toneIcon(tone, size = 16) {
  const [outline, mark] = SHAPES[tone] ?? SHAPES.idle;
  return svg(
    "svg",
    { ...hidden, class: `icon tone-${tone}`, width: size, height: size },
    svg("path", { d: outline, class: "icon-shape" }),
    svg("path", { d: mark, class: "icon-mark" }),
  );
}

/** A picture of a page or an action. */
export function picture(name, size = 18) {
  return svg("svg", { ...hidden, class: "picture", width: size, height: size }, svg("path", { d: PICTURES[name] }));
}
